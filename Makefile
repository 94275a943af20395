# Every command a person types. `make help` lists them; knobs are given as in `make up REPLICAS=5 STRATEGY=redlock`.

REPLICAS ?= 3
STRATEGY ?= batched
DB ?= mysql
REDIS_NODES ?= 3
export REPLICAS STRATEGY DB REDIS_NODES

# Two ways to run, with the same verbs. Docker builds its own image, so that nothing comes before its `up`.
RUNTIME ?= local
ifeq ($(RUNTIME),docker)
CLUSTER := local/docker
CLUSTER_DIR ?= .cluster/docker
INSTALL := local/install docker
BEFORE_UP :=
# Whatever sends load or looks at the tables comes after this: containers change their addresses.
BEFORE_LOAD := record
else ifeq ($(RUNTIME),local)
CLUSTER := local/cluster
CLUSTER_DIR ?= .cluster
INSTALL := local/install
BEFORE_UP := doctor build
BEFORE_LOAD :=
else
$(error RUNTIME=$(RUNTIME) will not do: give local or docker)
endif
# A knob that does not exist would change nothing, and be noticed after twenty minutes.
ifneq ($(ROUNDS)$(TRIES),)
$(error there is no ROUNDS= and no TRIES=: give REPEATS=, how often bench or sweep measures everything)
endif
# What a sweep takes in turn has names of its own.
ifneq ($(filter sweep,$(MAKECMDGOALS)),)
$(foreach one,STRATEGY:STRATEGIES BALANCE:BALANCES DISTANCE_MS:DISTANCES,$(if \
  $(filter command environment,$(firstword $(origin $(firstword $(subst :, ,$(one)))))),\
  $(error make sweep measures more than one: give $(lastword $(subst :, ,$(one)))= instead of $(firstword $(subst :, ,$(one)))=)))
endif
# What is built and run: `release`, or `dev`, with every check that the compiler can put in, and the tests at the same go.
PROFILE ?= release
BUILT := $(or $(CARGO_TARGET_DIR),target)/$(patsubst dev,debug,$(PROFILE))
COUPON_RUSH_BIN ?= $(BUILT)/coupon-rush
COUPON_LAB_BIN ?= $(BUILT)/lab
export CLUSTER_DIR COUPON_RUSH_BIN COUPON_LAB_BIN
# For targets that do not build it.
LAB = $(if $(wildcard $(COUPON_LAB_BIN)),$(COUPON_LAB_BIN),$(error $(COUPON_LAB_BIN) is missing: run `make build`))

.DEFAULT_GOAL := help
# What a target needs comes in its order: a machine that lacks something is told so, or gets it, before minutes of building.
.NOTPARALLEL:
.PHONY: help demo install build up upgrade scale status logs reset purge doctor down clean backup restore record rush arrival capacity spike fairness
.PHONY: sweep report bench chaos smoke verify dashboards dashboards-check test-page test-docker check test test-service test-cluster
MAKEFLAGS += --no-print-directory

help: ## Print this
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{ printf "  make %-16s %s\n", substr($$1, 3), $$2 }'
	@echo
	@echo "Knobs: REPLICAS=3 STRATEGY=batched|redlock|pessimistic|optimistic|conditional|unlocked DB=mysql|mariadb"
	@echo "  DB_MEMBERS=1|3 (three servers of MySQL as a group: when one dies, another takes its place)"
	@echo "  BALANCE=home|scattered (orders for a code go to one replica, or to any) DISTANCE_MS=0 (a round trip between replicas and servers)"
	@echo "  HOME_ORDERS=500 (so many orders at a home at a time; more go to the next replica)"
	@echo "  REDIS_NODES=1|3|5 ACCESS_LOG=on|off CLUSTER_DIR=.cluster PORT_OFFSET=0"
	@echo "  RATE_LIMIT=off|20 (requests of one address per second; off, because a laboratory's crowd has one address)"
	@echo "  NGINX_PORT=8000 REPLICA_PORT=8100 OPS_PORT=8200 REDIS_PORT=6390 MYSQL_PORT=3316 PROMETHEUS_PORT=9095 DISTANCE_PORT=6490"
	@echo "  EXPORTERS=on|off EXPORTER_PORT=9110 (the exporters of the Servers dashboard; on where they are installed)"
	@echo "  rush: VUS=1000 DURATION=60s USERS= SEED= RESET=0 STRICT=1   all runs: K6_OUT=influxdb=http://127.0.0.1:8086/k6"
	@echo "  arrival: RATE=1000 DURATION=30s RAMP_TO= CODES=1   capacity: FROM=500 TO=8000 GROWTH=25 STEP=10s P99_MS=100 CODES=1"
	@echo "  spike: RATE=500 PEAK=3000 BEFORE=10s SPIKE=10s AFTER=20s BACK_MS=250 CODES=1   fairness: CONTESTS=200 PIECES=20 OVER=3 RATE=1000"
	@echo "  the first three: WARMUP=5s SEED=1 ACKS=1|0 DROPS=forbid|allow VUS= (k6/lib/stream.js says what they mean)"
	@echo "  sweep: REPLICAS=1,2,4,8 STRATEGIES=redlock,batched SHAPES=few,crowd,rate,codes,contests BALANCES=home,scattered DISTANCES=0,1"
	@echo "    REPEATS=1 RATE=1000 WINDOW=3 SEED=1 INTO=FOLDER RESUME=FOLDER (goes on with an interrupted one) SWEEP_PORT_OFFSET=11000"
	@echo "    SHARES=0.1 (processors that each replica has for itself; without it all share the machine; needs root)"
	@echo "  bench: REPEATS=5 (with QUICK=1: 3) ONLY=issue,sold-out INTO=FOLDER BENCH_PORT_OFFSET=10000"
	@echo "  chaos: SEED= WAVES=900 FIRST=0 ONLY=FAULT,FAULT HUNG=10 (minutes with a hung lock node) INTO=FOLDER CHAOS_PORT_OFFSET=12000"
	@echo "    with RUNTIME=docker WAVES=300 HUNG=0: hosts vanish, networks part; as root. With DB_MEMBERS=3 WAVES=500 HUNG=0: the primary fails, or is cut off"
	@echo "  RUNTIME=local|docker GRAFANA=on|off GRAFANA_PORT=3000 (Grafana is Docker's alone)"
	@echo "  LOCK_TTL_MS= ON_LOCK_LOSS= PROBE_TIMEOUT_MS= POOL_SIZE= REQUEST_DEADLINE_MS= LAME_DUCK_MS=0 DRAIN_MS= THREADS= LOG=warn|warn,access=info LOG_FORMAT=text|json"
	@echo "    (handed on to the replicas)"

demo: install ## Install, build, start, send 6,000 users, prove the result, show the addresses; DB_MEMBERS=3: one dies meanwhile
	@$(CLUSTER) doctor
	@$(MAKE) build
	@$(CLUSTER) up
	@USERS=6000 local/k6 rush --expect-sold-out $(if $(filter 3,$(DB_MEMBERS)),--lose-primary); verdict=$$?; $(CLUSTER) status; exit $$verdict

install: ## Install what this machine lacks; running services are left alone
	@$(INSTALL)

build: ## Build the service and the laboratory, optimised; PROFILE=dev: with checks, and with the tests
	@cargo build --profile $(PROFILE) --locked --workspace --bins $(if $(filter dev,$(PROFILE)),--tests)

up: $(BEFORE_UP) ## Start the cluster, or change a running one to these knobs
	@$(CLUSTER) up

upgrade: up ## Replace the replicas one at a time under load by what was built from the tree as it is

scale: ## Change the number of replicas under load: make scale REPLICAS=5
	@$(CLUSTER) scale

status: ## Show every part: process, address, ready or not
	@$(CLUSTER) status

logs: ## Show the last log lines of all parts, or of one: make logs S=replica-2 TAIL=200 FOLLOW=1
	@$(CLUSTER) logs

record:
	@$(CLUSTER) record

reset: ## End a round and begin the next, with full stock and empty wallets: make reset ROUND=7
	@$(CLUSTER) reset

purge: ## Remove the rows of old rounds in small steps, but for the last ones: make purge KEEP_ROUNDS=2
	@$(CLUSTER) purge

doctor: ## Name what keeps this machine from running the cluster, with the cure
	@$(CLUSTER) doctor

down: ## Stop everything; the data stays
	@$(CLUSTER) down

clean: ## Stop everything and delete the data; ALL=1 deletes the kept runs and what was downloaded, too
	@$(CLUSTER) clean

backup: ## Copy a local cluster's MySQL while it is in use: make backup INTO=FOLDER
	@local/backup take $(or $(INTO),$(error INTO= names a folder that does not exist yet))

restore: ## Make a backup the data of a cluster that is down; BINLOGS= adds what came after: make restore FROM=FOLDER BINLOGS=FOLDER
	@local/backup restore $(or $(FROM),$(error FROM= names the folder of a backup)) $(BINLOGS)

rush: $(BEFORE_LOAD) ## Send a crowd and prove the result: make rush VUS=1000 DURATION=60s
	@local/k6 rush

arrival: $(BEFORE_LOAD) ## Ask at a fixed rate, whatever the answers, and see the latency: make arrival RATE=1000 DURATION=30s CODES=1
	@local/k6 arrival

capacity: $(BEFORE_LOAD) ## Raise the rate until something breaks, and name the highest that held: make capacity P99_MS=100
	@local/k6 capacity

spike: $(BEFORE_LOAD) ## Many times the rate all at once, and back: how long does it hurt? make spike RATE=500 PEAK=3000
	@local/k6 spike

fairness: $(BEFORE_LOAD) ## Sell out 200 tiny coupons one after the other, and say who overtook whom
	@$(LAB) fairness --cluster $(CLUSTER_DIR)/cluster.json $(if $(CONTESTS),--contests $(CONTESTS)) $(if $(PIECES),--pieces $(PIECES)) \
	  $(if $(OVER),--over $(OVER)) $(if $(RATE),--rate $(RATE))

smoke: $(BEFORE_LOAD) ## Try every call of the API once
	@local/k6 smoke

sweep: install build ## Measure lock wait and latency against replicas, 35 minutes; QUICK=1: 15 cells in two; DRY_RUN=1: the plan
	-@$(if $(DRY_RUN),:,local/install report)
	@$(COUPON_LAB_BIN) sweep $(if $(QUICK),--quick) $(if $(DRY_RUN),--dry-run) $(if $(RESUME),--resume $(RESUME)) \
	  $(if $(filter command environment,$(firstword $(origin REPLICAS))),--replicas $(REPLICAS)) $(if $(STRATEGIES),--strategies $(STRATEGIES)) \
	  $(if $(SHAPES),--shapes $(SHAPES)) $(if $(BALANCES),--balances $(BALANCES)) $(if $(DISTANCES),--distances $(DISTANCES)) \
	  $(if $(REPEATS),--repeats $(REPEATS)) $(if $(RATE),--rate $(RATE)) $(if $(SHARES),--shares $(SHARES)) \
	  $(if $(WINDOW),--seconds $(WINDOW)) $(if $(SEED),--seed $(SEED)) $(if $(INTO),--into $(INTO))

report: ## Draw a sweep: make report FOLDER=results/20260101T000000Z; PICTURE=replicas INTO=docs/pictures: one picture, elsewhere
	@local/install report
	@.cluster/report-venv/bin/python report/draw.py $(or $(FOLDER),$(error FOLDER= names the folder of a sweep)) \
	  $(if $(PICTURE),--only $(PICTURE)) $(if $(INTO),--into $(INTO))

bench: install build ## Measure every budget on a cluster of its own, half an hour on a quiet machine; QUICK=1: the main ones in two
	@$(COUPON_LAB_BIN) bench $(if $(QUICK),--quick) $(if $(REPEATS),--repeats $(REPEATS)) $(if $(ONLY),--only $(ONLY)) $(if $(INTO),--into $(INTO))

chaos: install build ## Break everything under load for an hour, and prove that nothing was lost; QUICK=1: four minutes; RUNTIME=docker: hosts, networks
	@$(if $(filter local,$(RUNTIME)),local/install strace)
	@$(COUPON_LAB_BIN) chaos $(if $(QUICK),--quick) $(if $(SEED),--seed $(SEED)) $(if $(FIRST),--first $(FIRST)) $(if $(WAVES),--waves $(WAVES)) \
	  $(if $(ONLY),--only $(ONLY)) $(if $(HUNG),--hung-minutes $(HUNG)) $(if $(INTO),--into $(INTO))

verify: $(BEFORE_LOAD) ## Check the tables against every promise; ACKS=FILE and HISTORY=FILE against what clients were told, too
	@$(LAB) verify --cluster $(CLUSTER_DIR)/cluster.json $(if $(ACKS),--acks $(ACKS)) $(if $(HISTORY),--history $(HISTORY))

dashboards: install ## Write grafana/dashboards/ anew from grafana/*.py
	@.cluster/venv/bin/python grafana/generate.py

dashboards-check: install ## Prove every panel: in order, and with numbers in it while a rush runs
	@.cluster/venv/bin/python grafana/generate.py --check
	@.cluster/venv/bin/python grafana/lint.py
	@.cluster/venv/bin/python grafana/live.py

test-page: install build ## Drive the laboratory's page in a headless Chromium, and look at what it draws
	@local/install chromium
	@local/test tests/cluster/page.py

test-docker: build ## Tell the stories of the Docker cluster, of a group, and of a swarm, on a real engine: this machine's, or for root Debian's while it lasts
	@local/install docker
	@local/engine sh -c 'local/standins/build && exec local/test tests/cluster/docker_story.py tests/cluster/docker_group.py tests/cluster/docker_swarm.py'

check: install ## Judge without a server: format, lints, docs, licences, configuration
	@local/install checks
	@local/install report
	@local/install docker-checks
	@local/check

# Tests of Redis, of nginx, of queues and of texts, which would not end otherwise if the database were another one.
ABOUT_NO_DATABASE := balanced:: description:: documents:: forgery:: half_alive:: home:: line:: lock_network:: metrics:: overload:: settings:: slow_clients::

test: test-service test-cluster ## Test on real servers beside a running cluster: service, then cluster; DB=mariadb: what asks the database

test-service: install build
	@local/test-rust $(if $(filter mariadb,$(DB)),--test api -- $(addprefix --skip ,$(ABOUT_NO_DATABASE)))

test-cluster: install build
	@local/test $(if $(filter mariadb,$(DB)),-m database)
