// The knobs of a script, read from the environment; a wrong one is named with what it may be before anything is sent.
// An empty one counts as not given, because that is what make hands on.

export function count(name, fallback, { min = 1, max = 1e6 } = {}) {
  const text = __ENV[name] || String(fallback);
  if (!/^\d+$/.test(text) || Number(text) < min || Number(text) > max) {
    throw new Error(`${name}=${text} will not do: give a whole number from ${min} to ${max}`);
  }
  return Number(text);
}

export function choice(name, fallback, allowed) {
  const text = __ENV[name] || fallback;
  if (!allowed.includes(text)) throw new Error(`${name}=${text} will not do: give one of ${allowed.join(', ')}`);
  return text;
}

// In seconds. Written as k6 writes it: 30s, 1m30s, 500ms.
export function duration(name, fallback, { min = 1, max = 3600 } = {}) {
  const text = __ENV[name] || fallback;
  const units = { ms: 0.001, s: 1, m: 60, h: 3600 };
  const parts = /^(\d+(ms|s|m|h))+$/.test(text) ? text.match(/\d+(ms|s|m|h)/g) : [];
  const seconds = parts.reduce((sum, part) => sum + parseInt(part, 10) * units[part.replace(/\d+/, '')], 0);
  if (parts.length === 0 || seconds < min || seconds > max) {
    throw new Error(`${name}=${text} will not do: give a time from ${min}s to ${max}s, as in 30s or 1m30s`);
  }
  return seconds;
}

// What becomes part of an id; SEED is part of the user ids, so the same seed is the same crowd.
export function word(name, fallback) {
  const text = __ENV[name] || fallback;
  if (!/^[A-Za-z0-9._:]{1,16}$/.test(text)) {
    throw new Error(`${name}=${text} will not do: it becomes part of ids, give 1 to 16 letters or digits`);
  }
  return text;
}
