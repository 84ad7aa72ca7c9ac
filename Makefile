# Tandem: set-up, build, tests, demo. Every target does the set-up it needs; what is there already costs nothing.
#   make test [ONLY="part of a path ..."]   make demo [JSON=1]   make bench   make soak   make deb   make format   make clean

CLANG ?= clang-14
CLANG_FORMAT ?= clang-format-14
NODE_HEADERS := $(if $(wildcard /usr/include/node/node_api.h),--nodedir=/usr)
ADDON := addon/build/Release/tandem.node
C_FILES = $(wildcard bpf/*.[ch] addon/src/*.cc addon/src/*.h)
RUN := scripts/with-bpffs.sh node

MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := build
.PHONY: setup build compile generated bpf lint test demo bench soak deb format clean

setup:
	@scripts/setup.sh

bpf: setup
	@$(MAKE) -s -f bpf/build.mk bpf CLANG=$(CLANG)

src/abi.gen.ts: bpf/abi.h bpf/impair.h scripts/abi.mjs
	@node scripts/abi.mjs --clang $(CLANG)
	@touch $@

$(ADDON): $(wildcard addon/src/*.cc addon/src/*.h addon/binding.gyp bpf/abi.h) package-lock.json
	@echo "build: native addon" >&2
	@node_modules/.bin/node-gyp rebuild --jobs=max --directory addon $(NODE_HEADERS) --loglevel=error >build/addon.log 2>&1 || { tail -n 40 build/addon.log >&2; exit 1; }
	@touch $@

# One recursion, so that the set-up is done before make looks at what is built with it.
build: setup bpf
	@mkdir -p build
	@$(MAKE) compile

compile: src/abi.gen.ts $(ADDON)
	@node_modules/.bin/tsc -p tsconfig.json

# The manual page, completion scripts, JSON Schema and tables of the documentation, from the sources.
generated: build
	@node build/js/src/cli/generated.js

lint: build
	@node_modules/.bin/biome check --error-on-warnings >build/biome.log 2>&1 || { cat build/biome.log >&2; exit 1; }
	@$(CLANG_FORMAT) --dry-run -Werror $(C_FILES)

test: build lint
	@$(RUN) scripts/test.mjs $(ONLY)

# Nothing but the demo's own document may reach standard output.
demo:
	@$(MAKE) build >&2
	@$(RUN) build/js/src/cli/tandem.js lab demo $(if $(JSON),--json)

bench: build
	@$(RUN) build/js/test/bench/bench.js

soak: build
	@$(RUN) build/js/test/bench/soak.js

# build/tandem_VERSION_ARCH.deb
deb: build
	@deploy/debian/build.sh

format: setup
	@node_modules/.bin/biome check --write >/dev/null 2>&1 || node_modules/.bin/biome check
	@$(CLANG_FORMAT) -i $(C_FILES)

clean:
	rm -rf build addon/build src/abi.gen.ts
