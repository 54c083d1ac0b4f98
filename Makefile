# The commands of daily work; `make` alone lists them.
# Everything is built with the release profile, so that running and testing share one build.

CARGO ?= cargo
FLAGS := --release --locked
# Further arguments, for example: make up ARGS="--listen 127.0.0.1:9000"
ARGS ?=
# What `make test` tests. Keep paystream among the packages: features, and so builds, stay the same.
PACKAGES ?= --workspace
# What `make bench` sends.
RATE ?= 3000
DURATION ?= 30s

.DEFAULT_GOAL := help
.PHONY: help up test test-embedded test-distributed lint fmt doc bench services services-stop services-status watch

help: ## List these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

up: ## Run the whole system with demo traffic; the page is at the address it prints
	$(CARGO) run $(FLAGS) -- up --demo $(ARGS)

test: services ## Run all tests: by themselves, against the real components, and the distributed system broken on purpose
	@CARGO="$(CARGO)" PACKAGES="$(PACKAGES)" tools/test.sh $(ARGS)

test-embedded: ## Run the tests that need no other program
	$(CARGO) test $(FLAGS) $(PACKAGES) $(ARGS)

test-distributed: services ## Run the distributed system, put it under load and break it; ARGS="--list" lists how
	tools/acceptance.py $(ARGS)

lint: ## Check the format and run clippy, warnings as errors
	$(CARGO) fmt --all --check
	$(CARGO) clippy $(FLAGS) --workspace --all-targets -- -D warnings

fmt: ## Format the code
	$(CARGO) fmt --all

doc: ## Build the API documentation, warnings as errors
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc $(FLAGS) --workspace --no-deps

bench: ## Load a fresh system for DURATION at RATE, print the figures, then reconcile it
	@CARGO="$(CARGO)" RATE="$(RATE)" DURATION="$(DURATION)" tools/bench.sh

services: ## Start Kafka, the ClickHouse engine and Redis as processes, fetching what is missing
	@tools/services.sh start

services-stop: ## Stop them; their data stays
	@tools/services.sh stop

services-status: ## Say which of them run and answer
	@tools/services.sh status

watch: ## Rebuild on every change, and restart the system when the build succeeded
	@CARGO="$(CARGO)" tools/watch.sh $(ARGS)
