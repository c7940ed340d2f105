# make help lists the targets.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help run up down test test-swap test-cgroup2 test-long test-fresh check bench fuzz install fetch build unit integration smoke preflight preflight-run clean

CARGO   ?= cargo
PREFIX  ?= /usr
BIN     := $(CURDIR)/target/stack
SCRIPTS := integration-tests/scripts
OUT     := $(or $(CARGO_TARGET_DIR),target)
# Runtime and shim are static: musl, which starts fastest, or glibc where Rust has no musl target.
MUSL    := $(shell uname -m)-unknown-linux-musl
TARGET   = $(if $(wildcard $(shell rustc --print sysroot)/lib/rustlib/$(MUSL)/lib),$(MUSL),$(shell uname -m)-unknown-linux-gnu)
STATIC   = $(if $(filter %-gnu,$(TARGET)),RUSTFLAGS="$$RUSTFLAGS -C target-feature=+crt-static")
# Elevate only to run.
AS_ROOT := $(if $(filter 0,$(shell id -u)),,sudo -E)
export CARGO_TERM_COLOR ?= never

help: ## this list
	@awk -F':.*## ' '/^[a-z0-9-]+:.*## /{printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: preflight-run build ## start a private stack, run real containers, end clean; CMD='…' runs that, IMAGE=name pulls
	@$(AS_ROOT) $(SCRIPTS)/stack.sh run

up: preflight-run build ## start a private stack and leave it running
	@$(AS_ROOT) $(SCRIPTS)/stack.sh up

down: ## end what `make up` started
	@$(AS_ROOT) $(SCRIPTS)/stack.sh down

test: unit integration ## unit and integration tests

unit: preflight-run preflight
	$(SCRIPTS)/run-tests.sh unit

integration: preflight-run build
	@$(SCRIPTS)/preflight.sh peers
	$(SCRIPTS)/run-tests.sh integration

smoke: build ## one row a seam against upstream's programs
	@$(SCRIPTS)/preflight.sh peers
	@$(AS_ROOT) $(SCRIPTS)/smoke.sh

test-swap: build ## every row of integration-tests/swap.toml and the containers beside stock's; ONLY='text' TIMES=1 JOBS=n
	@$(SCRIPTS)/preflight.sh swap
	@ONLY='$(ONLY)' $(SCRIPTS)/run-tests.sh swap

test-cgroup2: build ## docker run, limits and stop on pure cgroup v2, in a virtual machine; in others with systemd and AppArmor its driver, there and on v1, an ordinary user's, and the labels; SELinux's
	@$(SCRIPTS)/preflight.sh peers
	@$(SCRIPTS)/preflight.sh vm
	@programs=$$($(SCRIPTS)/run-tests.sh list) || { echo "$$programs"; exit 1; }; $(SCRIPTS)/vm.sh $$programs
	@VM_INIT=systemd $(SCRIPTS)/vm.sh
	@VM_INIT=systemd VM_CGROUP=1 $(SCRIPTS)/vm.sh
	@VM_INIT=selinux $(SCRIPTS)/vm.sh

fuzz: preflight ## the property tests over foreign bytes with new cases, FUZZ_SECONDS=300
	@$(SCRIPTS)/fuzz.sh

test-long: build ## the daemons killed again and again under load, and power cuts: N=kills (500) CUTS=of each of two disks (50) SEED=number; the runtime killed after each system call, races: ROUNDS=of each (10000)
	@N=$${N:-500} $(SCRIPTS)/run-tests.sh long

bench: build ## our programs beside upstream's; N=rounds PEERS=new|podman SECTION='run api exec parallel memory startup list images logs shim runtime'
	@$(SCRIPTS)/preflight.sh bench
	@$(SCRIPTS)/bench.sh $(SECTION)

test-fresh: ## fetch, then run and test with the network cut, in a bare Debian tree with only Rust and a clone
	@$(AS_ROOT) $(SCRIPTS)/fresh.sh

check: preflight ## formatting, lints, who may use whom
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --all-features --locked -- -D warnings
	$(CARGO) test --locked -q -p integration-tests --test tree

fetch: preflight ## what the other targets need from the network, but for the newest peers of test-swap
	@$(CARGO) fetch --locked
	@$(SCRIPTS)/preflight.sh peers
	@$(SCRIPTS)/preflight.sh bench
	@$(SCRIPTS)/preflight.sh vm

build: preflight ## the programs as they ship, in target/stack
	@$(CARGO) build --release --locked -p containerd-rs -p ctr -p engine -p cli
	@$(STATIC) $(CARGO) build --profile small --locked --target $(TARGET) -p runtime -p shim -p guest
	@mkdir -p $(BIN)
	@for p in containerd-rs ctr-rs dockerd-rs docker-rs; do ln -f $(OUT)/release/$$p $(BIN)/$$p; done
	@for p in runc-rs containerd-shim-runc-rs-v2 guest; do ln -f $(OUT)/$(TARGET)/small/$$p $(BIN)/$$p; done

install: build ## lay down the programs: DESTDIR=D PREFIX=/usr
	install -d $(DESTDIR)$(PREFIX)/bin
	install -m 755 $(addprefix $(BIN)/,containerd-rs ctr-rs dockerd-rs docker-rs runc-rs containerd-shim-runc-rs-v2) $(DESTDIR)$(PREFIX)/bin/

preflight:
	@$(SCRIPTS)/preflight.sh build

preflight-run:
	@$(SCRIPTS)/preflight.sh run

clean: ## remove what was built
	$(CARGO) clean
