// A Grafana dashboard, read from its own file and drawn with uPlot: rows, stats, curves and heatmaps.
import { element } from './look.js';
import { drawCurves, drawHeat, drawStat } from './panels.js';
import { instant, range } from './prometheus.js';

const SCRAPE_SECONDS = 2;
const POINTS = 240;

export class Board {
  constructor(file, place, variablesPlace) {
    this.range = 300;
    this.chosen = {};
    this.variables = file.templating.list.filter(({ type }) => type === 'query');
    this.annotations = file.annotations?.list || [];
    this.variablesPlace = variablesPlace;
    this.panels = [];
    this.place = place;
    this.sync = window.uPlot?.sync(file.uid);
    this.build(file);
    this.watch = new IntersectionObserver((entries) => this.seen(entries), { rootMargin: '600px' });
    for (const panel of this.panels) this.watch.observe(panel.card);
    this.showVariables();
  }

  build(file) {
    const parts = [element('p', 'about', file.description)];
    let grid = null;
    for (const panel of file.panels) {
      if (panel.type === 'row' || !grid) {
        grid = element('div', 'grid');
        if (panel.type === 'row') parts.push(element('h3', 'row-title', panel.title));
        parts.push(grid);
        if (panel.type === 'row') continue;
      }
      grid.append(this.card(panel));
    }
    this.place.replaceChildren(...parts);
  }

  card(panel) {
    const card = element('article', `card panel ${panel.type}`);
    card.style.setProperty('--w', panel.gridPos.w);
    card.dataset.title = panel.title;
    card.dataset.width = panel.gridPos.w;
    const head = element('div', 'panel-head');
    const about = element('details');
    const mark = element('summary', '', '?');
    mark.setAttribute('aria-label', `How to read “${panel.title}”`);
    about.append(mark, element('p', '', panel.description));
    head.append(element('h3', '', panel.title), about);
    const body = element('div', panel.type === 'stat' ? 'figure' : 'plot');
    card.append(head, body);
    this.panels.push({ model: panel, card, body, visible: false, drawn: null });
    return card;
  }

  // What is not on the screen is not asked for.
  seen(entries) {
    const fresh = [];
    for (const { target, isIntersecting } of entries) {
      const panel = this.panels.find(({ card }) => card === target);
      panel.visible = isIntersecting;
      if (isIntersecting && !panel.answer) fresh.push(panel);
    }
    if (fresh.length > 0) this.refresh(fresh);
  }

  async refresh(panels = this.panels.filter(({ visible }) => visible)) {
    const step = Math.max(SCRAPE_SECONDS, Math.ceil(this.range / POINTS));
    const end = Math.floor(Date.now() / 1000 / step) * step;
    const window = { start: end - this.range, end, step };
    const events = this.events(window);
    await Promise.all(panels.map(async (panel) => {
      try {
        const answers = await Promise.all(panel.model.targets.map(({ expr }) => range(this.filled(expr, step), window.start, end, step)));
        panel.answer = { window, events: await events, answers };
      } catch {
        panel.answer = { window, events: [], answers: [], problem: 'Prometheus does not answer.' };
      }
      if (!this.closed) this.draw(panel);
    }));
  }

  // The moments at which an annotation's expression begins to hold.
  async events({ start, end, step }) {
    const found = [];
    for (const { expr, iconColor } of this.annotations) {
      try {
        for (const { values } of await range(this.filled(expr, step), start, end, step)) {
          values.forEach(([time], place) => {
            if (place === 0 || time - values[place - 1][0] > step * 1.5) found.push({ time, color: iconColor });
          });
        }
      } catch {
        // The panels say that Prometheus does not answer.
      }
    }
    return found;
  }

  filled(expression, step) {
    const rate = Math.max(step + SCRAPE_SECONDS, 4 * SCRAPE_SECONDS);
    return expression
      .replaceAll('$__rate_interval', `${rate}s`).replaceAll('$__interval', `${step}s`).replaceAll('$__range', `${this.range}s`)
      .replace(/\$(\w+)/g, (whole, name) => (this.variables.some((variable) => variable.name === name) ? this.chosen[name] || '.+' : whole));
  }

  // A choice for every variable that has more than one value.
  async showVariables() {
    this.variablesPlace.replaceChildren();
    for (const { name, label, query, allValue } of this.variables) {
      const [, expression, wanted] = query.match(/^label_values\((.*), *(\w+)\)$/);
      let values = [];
      try {
        values = (await instant(`group by (${wanted}) (${this.filled(expression, SCRAPE_SECONDS)})`)).map(({ metric }) => metric[wanted]).sort();
      } catch {
        continue;
      }
      if (values.length < 2 || this.closed) continue;
      const select = element('select');
      select.append(new Option('all', allValue), ...values.map((value) => new Option(value, value.replace(/[.+*?()[\]{}|\\^$]/g, '\\\\$&'))));
      select.addEventListener('change', () => {
        this.chosen[name] = select.value;
        this.refresh();
      });
      const field = element('label', '', `${label} `);
      field.append(select);
      this.variablesPlace.append(field);
    }
  }

  draw(panel) {
    const draw = { stat: drawStat, heatmap: drawHeat, timeseries: drawCurves }[panel.model.type];
    draw?.(panel, this.sync);
  }

  redraw() {
    for (const panel of this.panels) {
      panel.drawn?.destroy?.();
      panel.drawn = null;
      if (panel.answer) this.draw(panel);
    }
  }

  close() {
    this.closed = true;
    this.watch.disconnect();
    for (const { drawn } of this.panels) drawn?.destroy?.();
    this.variablesPlace.replaceChildren();
  }
}
