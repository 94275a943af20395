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
BEFORE_UP := build
BEFORE_LOAD :=
else
$(error RUNTIME=$(RUNTIME) will not do: give local or docker)
endif
COUPON_LAB_BIN ?= $(or $(CARGO_TARGET_DIR),target)/release/lab
export CLUSTER_DIR

.DEFAULT_GOAL := help
.PHONY: help demo install build up scale status logs reset doctor down clean record rush smoke verify dashboards check test
.PHONY: dashboards-check test-page
MAKEFLAGS += --no-print-directory

help: ## Print this
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{ printf "  make %-16s %s\n", substr($$1, 3), $$2 }'
	@echo
	@echo "Knobs: REPLICAS=3 STRATEGY=batched|redlock|pessimistic|optimistic|conditional|unlocked DB=mysql|mariadb"
	@echo "  REDIS_NODES=1|3|5 VUS=1000 DURATION=60s USERS= SEED= ACCESS_LOG=on|off CLUSTER_DIR=.cluster PORT_OFFSET=0"
	@echo "  NGINX_PORT=8000 REPLICA_PORT=8100 OPS_PORT=8200 REDIS_PORT=6390 MYSQL_PORT=3316 PROMETHEUS_PORT=9095"
	@echo "  EXPORTERS=on|off EXPORTER_PORT=9110 (the exporters of the Servers dashboard; on where they are installed)"
	@echo "  RUNTIME=local|docker GRAFANA_PORT=3000 (Grafana is Docker's alone)"
	@echo "  LOCK_TTL_MS= ON_LOCK_LOSS= POOL_SIZE= REQUEST_DEADLINE_MS= DRAIN_MS= THREADS= LOG= (handed on to the replicas)"

demo: install ## Install, build, start, send 6,000 users, prove the result, show the addresses
	@$(CLUSTER) doctor
	@$(MAKE) build
	@$(CLUSTER) up
	@USERS=6000 local/k6 rush --expect-sold-out; verdict=$$?; $(CLUSTER) status; exit $$verdict

install: ## Install what this machine lacks; running services are left alone
	@$(INSTALL)

build: ## Build the service and the laboratory, optimised
	@cargo build --release --locked --workspace --bins

up: $(BEFORE_UP) ## Start the cluster, or change a running one to these knobs
	@$(CLUSTER) up

scale: ## Change the number of replicas under load: make scale REPLICAS=5
	@$(CLUSTER) scale

status: ## Show every part: process, address, ready or not
	@$(CLUSTER) status

logs: ## Show the last log lines of all parts, or of one: make logs S=replica-2 FOLLOW=1
	@$(CLUSTER) logs

record:
	@$(CLUSTER) record

reset: ## Begin a new round: full stock, empty wallets
	@$(CLUSTER) reset

doctor: ## Name what keeps this machine from running the cluster, with the cure
	@$(CLUSTER) doctor

down: ## Stop everything; the data stays
	@$(CLUSTER) down

clean: ## Stop everything and delete the data; ALL=1 deletes the downloaded tools, too
	@$(CLUSTER) clean

rush: $(BEFORE_LOAD) ## Send a crowd and prove the result: make rush VUS=1000 DURATION=60s
	@local/k6 rush

smoke: $(BEFORE_LOAD) ## Try every call of the API once
	@local/k6 smoke

verify: $(BEFORE_LOAD) ## Check the tables against every promise; ACKS=FILE compares them with what a run was told
	@$(COUPON_LAB_BIN) verify --cluster $(CLUSTER_DIR)/cluster.json $(if $(ACKS),--acks $(ACKS))

dashboards: install ## Write grafana/dashboards/ anew from grafana/*.py
	@.cluster/venv/bin/python grafana/generate.py

dashboards-check: install ## Prove every panel: in order, and with numbers in it while a rush runs
	@.cluster/venv/bin/python grafana/generate.py --check
	@.cluster/venv/bin/python grafana/lint.py
	@.cluster/venv/bin/python grafana/live.py

test-page: install ## Drive the laboratory's page in a headless Chromium, and look at what it draws
	@local/install chromium
	@local/test-page

check: install ## Judge all that can be judged without running: format, lints, docs, licences, configuration
	@local/install cargo-deny
	@local/install docker-checks
	@local/check

test: install build ## Test on real servers beside a running cluster: the service, then the cluster itself
	@local/test-rust
	@local/test
