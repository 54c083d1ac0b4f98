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
.PHONY: help up test test-embedded lint fmt doc bench services watch

help: ## List these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

up: ## Run the whole system with demo traffic; the page is at the address it prints
	$(CARGO) run $(FLAGS) -- up --demo $(ARGS)

test: test-embedded ## Run all tests

test-embedded: ## Run the tests that need no other program (at present these are all tests)
	$(CARGO) test $(FLAGS) $(PACKAGES) $(ARGS)

lint: ## Check the format and run clippy, warnings as errors
	$(CARGO) fmt --all --check
	$(CARGO) clippy $(FLAGS) --workspace --all-targets -- -D warnings

fmt: ## Format the code
	$(CARGO) fmt --all

doc: ## Build the API documentation, warnings as errors
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc $(FLAGS) --workspace --no-deps

bench: ## Load a fresh system for DURATION at RATE, print the figures, then reconcile it
	@CARGO="$(CARGO)" RATE="$(RATE)" DURATION="$(DURATION)" tools/bench.sh

services: ## Start what the distributed system needs
	@echo "Nothing to start: the embedded system ('make up') is one process and needs no other program."
	@echo "Kafka, ClickHouse and the rest come with the distributed system."

watch: ## Rebuild on every change, and restart the system when the build succeeded
	@CARGO="$(CARGO)" tools/watch.sh $(ARGS)
