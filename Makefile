# pyrunc: `make help` lists what there is. Everything is built by meson through pip (meson.build,
# pyproject.toml); this file wraps it, keeps a virtual environment and installs what a fresh machine
# lacks.
SHELL := /bin/bash
.SHELLFLAGS := -e -u -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

# Debian's own interpreter has a static library to link; another one is used when it is too old or
# not there.
new_enough = $(shell $(1) -I -c 'import sys; print(sys.version_info >= (3, 11))' 2>/dev/null)
PYTHON ?= $(if $(filter True,$(call new_enough,/usr/bin/python3)),/usr/bin/python3,python3)
PREFIX ?= /usr/local
DESTDIR ?=
PYTEST_ARGS ?=
FULL ?=
LAUNCHER ?= auto
SNAPSHOT ?= auto

VENV := .venv
BIN := $(VENV)/bin
STAMPS := $(VENV)/stamps
LIBDIR := $(DESTDIR)$(PREFIX)/lib/pyrunc
CODE := pyrunc native tests integration bench contrib
export PYTHON
export PATH := $(CURDIR)/$(BIN):$(PATH)
# What root executes must not be writable by a group: the launcher refuses it.
UMASK := umask 022
PIP := $(BIN)/python -m pip install --disable-pip-version-check --use-pep517

# A new or a removed file must also cause a build: the list of sources is itself a source.
SOURCES := $(shell find pyrunc native -name __pycache__ -prune -o -type f \
    \( -name '*.py' -o -name '*.pyi' -o -name '*.[ch]' -o -name '*.list' -o -name '*.def' -o -name py.typed \) -print | LC_ALL=C sort)
LIST := build/sources.txt
ifneq ($(file <$(LIST)),$(SOURCES))
$(shell mkdir -p build && echo '$(SOURCES)' > $(LIST))
endif

TIERS := test-vm test-checkpoint test-kubernetes-vm test-selinux test-systemd test-arm64 test-kernel61 test-engines bench-systemd
.PHONY: help build demo test analyze analysis prove-security sanitize $(TIERS) engines test-cri conformance lint fuzz coverage bench clean install uninstall test-tools lint-tools

help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "  variables: PYTHON, PREFIX, DESTDIR, PYTEST_ARGS, LAUNCHER (auto, static, shared, exec), SNAPSHOT (auto, enabled, disabled; with LAUNCHER=auto)"

build: $(STAMPS)/build ## build and install into .venv: the executable is .venv/bin/pyrunc

$(STAMPS)/venv: pyproject.toml .ci/require
	@.ci/require build
	@$(UMASK); $(BIN)/python -c 'import pip' 2>/dev/null || $(PYTHON) -m venv --clear $(VENV); mkdir -p $(@D)
	@echo "installing the build requirements and runtime dependencies into $(VENV), about half a minute"
	@$(UMASK); $(BIN)/python -c $(read_list) build-system.requires project.dependencies project.optional-dependencies.image | \
	    xargs -d "\n" $(PIP) -q
	@touch $@

# Lists of pyproject.toml, one requirement a line.
read_list := 'import functools, sys, tomllib; d = tomllib.load(open("pyproject.toml", "rb")); \
    [print(r) for k in sys.argv[1:] for r in functools.reduce(lambda a, b: a[b], k.split("."), d)]'

$(STAMPS)/build: $(STAMPS)/venv $(SOURCES) $(LIST) meson.build meson.options
	@echo "building, about half a minute (build/pip.log)"
	@# Debian 12's pip passes one argument. Meson keeps options, so others begin with an empty directory.
	@echo '$(LAUNCHER) $(SNAPSHOT)' | cmp -s - build/options || { rm -rf build/meson; echo '$(LAUNCHER) $(SNAPSHOT)' >build/options; }
	@$(UMASK); $(PIP) -v --no-build-isolation --no-deps --force-reinstall --config-settings=build-dir=build/meson \
	    --config-settings=setup-args=$(if $(filter auto,$(SNAPSHOT)),-Dlauncher=$(LAUNCHER),-Dsnapshot=$(SNAPSHOT)) . >build/pip.log 2>&1 \
	    || { tail -n 40 build/pip.log; exit 1; }
	@# The tests run the sources as they are, so the native parts have to be beside them.
	@site=$$($(BIN)/python -Ic 'import sysconfig; print(sysconfig.get_path("platlib"))'); \
	    cp --remove-destination $$site/pyrunc/_init $$site/pyrunc/_shim*.so $$site/pyrunc/_reader*.so pyrunc/ # never into a file that is mapped
	@touch $@
	@echo "built $(BIN)/pyrunc; \`make demo\` runs a container with it, \`make install\` puts a copy into $(PREFIX)"
	@$(BIN)/pyrunc --version | sed -n 's/^launcher: /its launcher: /p'
	@sed -n -e 's/^.*no start-up snapshot: /it starts slowly, without a snapshot: /p' \
	    -e 's/^.*the start-up snapshot is untrained: /it starts more slowly, its snapshot is untrained: /p' build/pip.log | head -n 1

demo: build ## run a container from a busybox bundle and look around inside it
	@.ci/require demo
	@integration/demo.sh $(BIN)/pyrunc

test-tools: $(STAMPS)/venv
	@.ci/require build test demo
	@.ci/require engines || echo "tests of engines that are not there will be skipped"
	@.ci/require schemas || echo "tests against the official schemas will be skipped: they are in a Go module"
	@test $(STAMPS)/test -nt pyproject.toml || { \
	    $(BIN)/python -c $(read_list) project.optional-dependencies.test | \
	    xargs -d "\n" $(PIP) -q && touch $(STAMPS)/test; }

test: test-tools bench-tools build peers criu ## all tests, unit and integration (root); PYTEST_ARGS='-k NAME -x'
	@$(BIN)/python -m pytest $(PYTEST_ARGS)

RESULTS := integration/engines/results.json
.PHONY: faults
FAULTS_SECONDS ?= 3000
faults: test-tools build ## every system call fails once, every process dies once: integration/faults, FAULTS_SECONDS=3000
	@$(BIN)/python -m integration.faults.sweep --seconds $(FAULTS_SECONDS)

.PHONY: input-costs
INPUT_COSTS_ARGS ?=
input-costs: test-tools build ## 5000 huge or hostile documents, each through the verbs that read it: time, memory, output (hours; INPUT_COSTS_ARGS='--match /mounts')
	@$(BIN)/python -m integration.input_costs $(INPUT_COSTS_ARGS)

.PHONY: floods
floods: test-tools build ## 500 x 16 creates of one id, 1000 containers at once, damaged state, full disks; FLOODS_SECONDS=300 for each
	@$(BIN)/python -m integration.faults.floods --full --seconds $(or $(FLOODS_SECONDS),300)

# Peers are sampled: a whole sweep of them takes as long as ours, for figures that do not change.
.PHONY: reliability
PEERS_SECONDS ?= 300
reliability: faults floods ## `make faults floods`, the same with runc and crun for PEERS_SECONDS=300, then integration/RELIABILITY.md
	@test -x build/peers/bin/crun || bench/peers.sh || echo "without crun"
	@for peer in runc build/peers/bin/crun; do command -v $$peer >/dev/null || continue; \
	    PYRUNC_UNDER_TEST=$$peer $(BIN)/python -m integration.faults.sweep --seconds $(PEERS_SECONDS) \
	        --scenes create,start,kill,state,delete,exec,exec-detach >build/faults/$${peer##*/}.log || true; \
	    PYRUNC_UNDER_TEST=$$peer $(BIN)/python -m integration.faults.floods --full --seconds 60 >>build/faults/$${peer##*/}.log || true; \
	done
	@$(BIN)/python -m integration.faults.report >integration/RELIABILITY.md
	@cat integration/RELIABILITY.md

MUTANTS_SEED ?= 1
MUTANTS_SECONDS ?= 7200
MUTANTS_ARGS ?= --python 600 --c 150
.PHONY: mutants
mutants: test-tools build coverage-tools ## change the code in one place after the other and see whether tests notice; MUTANTS_SEED=1 MUTANTS_SECONDS=7200
	@$(BIN)/python -m integration.mutants --seed $(MUTANTS_SEED) --seconds $(MUTANTS_SECONDS) $(MUTANTS_ARGS)

.PHONY: differential peers criu
criu:
	@bench/criu.sh >build/criu.log 2>&1 || echo "without criu: the checkpoint tests are skipped (build/criu.log)"

peers:
	@test -x build/peers/bin/crun -a -x build/peers/bin/runc-new || bench/peers.sh || echo "without the newest runc and crun"

DIFFERENTIAL_ARGS ?= --table integration/DIFFERENTIAL.md
differential: test-tools build peers ## 5,000 configs and 1,000 sequences of commands on pyrunc, runc and crun: what differs
	@$(BIN)/python -m integration.differential $(DIFFERENTIAL_ARGS)

engines: test-tools build ## containerd, podman, docker, conmon with runc and with pyrunc; writes integration/ENGINES.md and its table in README.md
	@PYRUNC_ENGINES_RECORD=$(RESULTS) $(BIN)/python -m pytest integration/engines $(PYTEST_ARGS)
	@$(BIN)/python -m integration.engines.record $(RESULTS)
	@cat integration/ENGINES.md

# The same tests where this machine's controllers, init, processor or kernel are not enough:
# integration/README.md.
test-vm: TIER := vm
test-systemd: TIER := systemd
test-arm64: TIER := arm64
test-checkpoint: TIER := checkpoint
test-kernel61: TIER := kernel61
test-selinux: TIER := selinux
test-engines: TIER := engines
test-kubernetes-vm: TIER := kubernetes
test-kubernetes-vm: export PYRUNC_ENGINES_RECORD := $(RESULTS)
test-kubernetes-vm: peers kubernetes
test-systemd test-checkpoint test-selinux test-engines: peers criu
bench-systemd: TIER := bench-systemd
test-vm: ## limits that bite, with every cgroup v2 controller: here when it has them, else in a QEMU guest
test-systemd: ## the systemd cgroup driver, under systemd as init: here or in a guest
test-arm64: export PYRUNC_TEST_FULL = $(FULL)
test-arm64: ## arm64: build from source (a guest's is kept), unit tests of compiled code, life cycle, exec, seccomp: here or in a guest; FULL=1: all unit tests
test-selinux: ## SELinux labels, with SELinux on: here or in a guest
test-checkpoint: ## checkpoint and restore with dirty memory tracking, AppArmor and systemd: here or in a guest; PYRUNC_UNDER_TEST=runc-new
test-engines: ## podman, containerd, docker and conmon with every cgroup v2 controller: here or in a guest
test-kubernetes-vm: ## the cluster of test-kubernetes with limits, out-of-memory kills, swap and eviction: here or in a guest
test-kernel61: ## the core tests on Linux 6.1, in a guest
bench-systemd: ## `run` with the systemd driver against runc's, under systemd as init: here or in a guest
$(TIERS): test-tools build
	@$(BIN)/python -m integration.vm $(TIER) $(PYTEST_ARGS)
	@$(if $(PYRUNC_ENGINES_RECORD),$(BIN)/python -m integration.engines.record $(RESULTS))

# Current engines, built with Go from its module proxy: once, kept in build/engines.
BUILT := $(CURDIR)/build/engines
CONTAINERD := containerd ctr containerd-shim-runc-v2
KUBERNETES := etcd kube-apiserver kube-scheduler kube-controller-manager kubelet kubectl
record_engines = PYRUNC_ENGINES_BIN=$(BUILT)/bin PYRUNC_ENGINES_RECORD=$(RESULTS) $(BIN)/python -m pytest $(1) $(PYTEST_ARGS) && \
    $(BIN)/python -m integration.engines.record $(RESULTS)

.PHONY: kubernetes test-kubernetes test-containerd test-client test-buildkit
kubernetes:
	@.ci/require current
	@integration/engines/build.sh $(BUILT) $(CONTAINERD) $(KUBERNETES)

test-kubernetes: test-tools build peers kubernetes ## a cluster of one node, the same pods on pyrunc and on runc (builds Kubernetes with Go: half an hour, once)
	@$(call record_engines,integration/engines/kubernetes)

test-containerd: test-tools build ## containerd 1.x and a current 2.x with ctr, and the shim in Rust (builds with Go and cargo: minutes, once)
	@.ci/require current
	@integration/engines/build.sh $(BUILT) $(CONTAINERD)
	@command -v cargo >/dev/null && integration/engines/build.sh $(BUILT) containerd-shim-runc-v2-rs || \
	    echo "skipped: containerd's Rust shim: no cargo, or its crate does not build"
	@$(call record_engines,integration/engines/test_containerd.py)

test-client: test-tools build peers ## containerd's own client tests on a current containerd (builds with Go: minutes, once)
	@.ci/require current
	@integration/engines/build.sh $(BUILT) $(CONTAINERD) client.test runc-fp
	@$(call record_engines,integration/engines/test_client.py)

# Debian 13's engines, in a root filesystem of their own.
debian13 = integration/engines/debian.sh $(BUILT) || { echo "skipped: Debian 13 cannot be installed"; exit 0; }; \
    export PYRUNC_DEBIAN13=$(BUILT)/debian13;
test-buildkit: test-tools build peers ## BuildKit with its OCI worker (builds with Go: minutes, once)
	@.ci/require demo
	@integration/engines/build.sh $(BUILT) buildkitd buildctl
	@$(call record_engines,integration/engines/test_buildkit.py)

.PHONY: test-debian13 test-docker
test-debian13: test-tools build ## podman, buildah and docker of Debian 13 in a root filesystem of it (installs it once: 900 MB)
	@.ci/require debian13
	@$(debian13) $(call record_engines,$(filter-out %_29.py,$(wildcard integration/engines/debian13/test_*.py)))

test-docker: test-tools build ## Docker Engine 29 with its BuildKit (builds with Go: minutes, once; the client is Debian 13's)
	@.ci/require current debian13
	@integration/engines/build.sh $(BUILT) $(CONTAINERD) dockerd
	@$(debian13) $(call record_engines,integration/engines/debian13/test_docker_29.py)

.PHONY: test-pythons
test-pythons: test-tools ## build with CPython 3.11 to 3.14 and with each kind of launcher, and test each executable (root, slow); PYTHONS='3.13 exec'
	@PYTEST_ARGS="$(PYTEST_ARGS)" integration/pythons.sh $(PYTHONS)

test-cri: test-tools build ## crictl and critest on containerd 1.x and a current 2.x (builds with Go: minutes, once)
	@.ci/require current cri
	@integration/engines/build.sh $(BUILT) $(CONTAINERD) crictl critest
	@$(call record_engines,integration/engines/test_cri.py integration/engines/test_critest.py)

CONFORMANCE := build/conformance
CONFORMANCE_ARGS ?=
conformance: build ## runtime-tools' validation programs, with runc beside (root, Go); CONFORMANCE_ARGS='start mounts'
	@.ci/require build demo test conformance
	@mkdir -p $(CONFORMANCE)/validation
	@cd integration/conformance && go build -o ../../$(CONFORMANCE)/validation/ github.com/opencontainers/runtime-tools/validation/...
	@cd integration/conformance && CGO_ENABLED=0 go build -o ../../$(CONFORMANCE)/runtimetest \
	    github.com/opencontainers/runtime-tools/cmd/runtimetest
	@$(BIN)/python integration/conformance/run.py $(CONFORMANCE) $(BIN)/pyrunc $(CONFORMANCE_ARGS)

sanitize: test-tools build ## the native code under ASan and UBSan: unit tests, and integration tests (root)
	@native/sanitize $(PYTEST_ARGS)

prove-security: test-tools build ## break pyrunc in each way the security tests guard against, and see them fail (root)
	@$(BIN)/python -m integration.security.sabotage $(ROWS)

lint-tools: $(STAMPS)/venv
	@.ci/require build lint
	@test $(STAMPS)/lint -nt pyproject.toml || { \
	    $(BIN)/python -c $(read_list) project.optional-dependencies.dev project.optional-dependencies.test | \
	    xargs -d "\n" $(PIP) -q && touch $(STAMPS)/lint; }

CFLAGS_LINT := -std=gnu11 -D_GNU_SOURCE -O2 -Wall -Wextra -Wformat=2 -Wconversion -Werror -S -o -
PYTHON_DEFINES := $(foreach name,LAUNCHER_KIND PYTHON_EXECUTABLE PYTHON_EXT_SUFFIX PYTHON_VERSION,-D$(name)='"/x"')
C_OWN := $(filter-out %/plan_ops.h %/init/handlers.h %/init/handlers.c,$(filter %.c %.h,$(SOURCES)))
lint: lint-tools build ## ruff, mypy, bandit, clang-format, C warnings as errors, static analysis, generated files, prose
	@$(BIN)/ruff check $(wildcard $(CODE))
	@$(BIN)/ruff format --check $(wildcard $(CODE))
	@$(BIN)/mypy
	@clang-format --dry-run -Werror $(C_OWN)
	@for file in $(filter native/init/%.c,$(SOURCES)); do musl-gcc $(CFLAGS_LINT) -fPIE $$file >/dev/null; done
	@for file in $(filter native/shim/%.c,$(SOURCES)); do gcc $(CFLAGS_LINT) -fPIC $$file >/dev/null; done
	@include=$$($(BIN)/python -Ic 'import sysconfig; print(sysconfig.get_path("include"))'); \
	    for file in $(filter native/launcher/%.c native/reader/%.c,$(SOURCES)); do \
	        gcc $(CFLAGS_LINT) -fPIE -fno-builtin -fno-math-errno -DHAVE_CORE_PHASE -DHAVE_SNAPSHOT $(PYTHON_DEFINES) -isystem $$include $$file >/dev/null; done
	@$(BIN)/python native/gen_plan.py --check
	@$(BIN)/python contrib/generate.py --check
	@$(BIN)/python contrib/config_types.py --check
	@$(BIN)/python contrib/api_reference.py --check
	@$(BIN)/python contrib/prose.py
	@$(BIN)/bandit -q -c pyproject.toml -r pyrunc
	@$(MAKE) --no-print-directory -j2 analysis
	@echo "lint: clean"

# One stamp a file: a file is looked at again when it or a header has changed.
STAMPED := $(patsubst %,build/analysis/%.ok,$(filter native/init/%.c native/shim/%.c native/reader/%.c native/launcher/%.c,$(SOURCES)))
analyze: lint-tools build analysis ## static analysis of the C code: gcc -fanalyzer, clang-tidy, cppcheck (part of lint)
analysis: $(STAMPED)
$(filter build/analysis/native/init/%,$(STAMPED)): $(filter native/init/%.h,$(SOURCES))
$(filter build/analysis/native/shim/%,$(STAMPED)): $(filter native/shim/%.h,$(SOURCES))
$(filter build/analysis/native/reader/%,$(STAMPED)): $(filter native/reader/%.h,$(SOURCES))
$(filter build/analysis/native/launcher/%,$(STAMPED)): $(filter native/launcher/%.h native/reader/%.h,$(SOURCES))
build/analysis/%.ok: % .clang-tidy native/cppcheck.txt native/analyze
	@PYTHON=$(BIN)/python native/analyze $<
	@mkdir -p $(@D) && touch $@

FUZZ_SECONDS ?= 60
FUZZ_ARGS ?=
fuzz: test-tools build ## every fuzz target for FUZZ_SECONDS (60): executions and crashes; FUZZ_ARGS='config plan'
	@.ci/require fuzz || echo "the C targets will be left out"
	@test -e $(STAMPS)/fuzz || { $(BIN)/python -c $(read_list) project.optional-dependencies.fuzz | \
	    xargs -d "\n" $(PIP) -q >build/fuzz-pip.log 2>&1 && touch $(STAMPS)/fuzz || echo "atheris cannot be installed (build/fuzz-pip.log)"; }
	@PYTHONPATH=.:tests $(BIN)/python -m fuzz --seconds $(FUZZ_SECONDS) $(FUZZ_ARGS)

.PHONY: coverage-tools
coverage-tools: $(STAMPS)/venv
	@test -e $(STAMPS)/coverage || { $(BIN)/python -c $(read_list) project.optional-dependencies.coverage | \
	    xargs -d "\n" $(PIP) -q && touch $(STAMPS)/coverage; }

coverage: test-tools build coverage-tools ## lines and branches that the tests reach (root, slow); PYTEST_ARGS='-k NAME'
	@tests/coverage.sh $(BIN)/python build/coverage $(PYTEST_ARGS)

.PHONY: bench-tools
bench-tools: $(STAMPS)/venv
	@test $(STAMPS)/bench -nt pyproject.toml || { $(BIN)/python -c $(read_list) project.optional-dependencies.bench | \
	    xargs -d "\n" $(PIP) -q && touch $(STAMPS)/bench; }

BENCH_ARGS ?=
bench: build bench-tools peers criu ## compare with runc and crun on the same bundle, ten minutes; writes bench/RESULTS.md (root)
	@.ci/require test demo bench
	@$(BIN)/python -m bench --write $(BENCH_ARGS)

.PHONY: scale
scale: build peers ## 500 containers at once: rates, memory, and whether verbs become slower (root; part of bench); BENCH_ARGS='--containers 50'
	@.ci/require test demo
	@$(BIN)/python -m bench.scale $(BENCH_ARGS)

.PHONY: scale-engines
scale-engines: test-tools build ## the same through a current containerd and ctr, with runc beside (root; builds with Go); BENCH_ARGS='--containers 50'
	@.ci/require current
	@integration/engines/build.sh $(BUILT) $(CONTAINERD)
	@PYRUNC_ENGINES_BIN=$(BUILT)/bin PYRUNC_ENGINES_RECORD=$(RESULTS) $(BIN)/python -m integration.engines.scale $(BENCH_ARGS)
	@$(BIN)/python -m integration.engines.record $(RESULTS)

.PHONY: bench-node
bench-node: build bench-tools test-tools peers ## pods and exec probes on a current containerd with runc and crun, ten minutes; writes bench/RESULTS.md (root)
	@.ci/require test demo current
	@integration/engines/build.sh $(BUILT) $(CONTAINERD)
	@$(BIN)/python -m bench.node --write $(BENCH_ARGS)

.PHONY: bench-images
bench-images: build ## unpack an image beside umoci and podman; the second `run --image` beside a plain `run` (root)
	@.ci/require test demo
	@$(BIN)/python -m bench.images $(BENCH_ARGS)

clean: ## remove everything that was built
	rm -rf build dist $(VENV) pyrunc/_init pyrunc/_shim*.so pyrunc/_reader*.so .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find $(wildcard $(CODE)) -name __pycache__ -prune -exec rm -rf {} +

# The copy needs neither this directory nor the virtual environment: the package, its three
# dependencies, the executable. What is put there is listed in $(MANIFEST), so that only that is
# removed again.
MANIFEST := $(LIBDIR)/installed-files
define remove_installed
	@if [ -f $(MANIFEST) ]; then \
	    sed 's|^|$(DESTDIR)$(PREFIX)/|' $(MANIFEST) | xargs -d "\n" rm -f; rm -f $(MANIFEST); \
	    find $(LIBDIR) -name __pycache__ -prune -exec rm -rf {} +; find $(LIBDIR) -depth -type d -empty -delete; fi
endef
SHIPPED := cffi pyroute2 urllib3 backports_zstd # the last one up to CPython 3.13
SHARED := contrib/completions/pyrunc.bash=share/bash-completion/completions/pyrunc \
    contrib/completions/_pyrunc=share/zsh/site-functions/_pyrunc \
    contrib/completions/pyrunc.fish=share/fish/vendor_completions.d/pyrunc.fish contrib/man/pyrunc.8=share/man/man8/pyrunc.8

install: build ## put a copy under PREFIX (/usr/local) for this machine's engines; DESTDIR is honoured
	$(remove_installed)
	@$(UMASK); site=$$($(BIN)/python -Ic 'import sysconfig; print(sysconfig.get_path("platlib"))'); \
	    rm -rf build/install; mkdir -p build/install/lib/pyrunc build/install/bin; lib=build/install/lib/pyrunc; \
	    for part in pyrunc pyroute2 urllib3 backports; do \
	        [ $$part = backports -a ! -e $$site/$$part ] || cp -r --no-preserve=ownership $$site/$$part $$lib/; done; \
	    cp --no-preserve=ownership $$site/_cffi_backend*.so $$lib/; \
	    doc=build/install/share/doc/pyrunc; install -D -m 0644 LICENSE $$doc/LICENSE; \
	    for part in $(SHIPPED); do [ $$part != backports_zstd -o -e $$site/backports ] || continue; \
	        mkdir -p $$doc/licenses/$$part; \
	        cp -r --no-preserve=ownership $$site/$$part-[0-9]*.dist-info/licenses/. $$doc/licenses/$$part/; done; \
	    find $$lib -name __pycache__ -prune -exec rm -rf {} +; \
	    $(BIN)/python -Im compileall -q --invalidation-mode unchecked-hash $$lib; \
	    install -m 0755 $(BIN)/pyrunc build/install/bin/pyrunc; \
	    for pair in $(SHARED); do install -D -m 0644 $${pair%%=*} build/install/$${pair#*=}; done; \
	    chmod -R u+w,go-w,a+rX build/install; \
	    (cd build/install && find . -type f -printf '%P\n' | LC_ALL=C sort) >build/installed-files; \
	    install -m 0644 build/installed-files $$lib/installed-files; \
	    install -d $(DESTDIR)$(PREFIX); cp -r --no-preserve=ownership build/install/. $(DESTDIR)$(PREFIX)/; rm -rf build/install
	@echo "installed $(DESTDIR)$(PREFIX)/bin/pyrunc"

uninstall: ## remove what install put there, and nothing else
	$(remove_installed)
