# The one entry point. Each target is one script of scripts/, which installs what it misses.
.DEFAULT_GOAL := help
.PHONY: help build demo test check fuzz bench

help: ## what there is
	@bash scripts/help.sh

demo: ## the main job on this machine: a policy, a real Envoy, tokens used up; Ctrl-C ends it
	@bash scripts/demo.sh

build: ## dist/weir.wasm and dist/limitador-adapter
	@bash scripts/build.sh

test: ## every check and test that needs no container engine
	@bash scripts/test.sh

check: ## formatting, lints, the purity of the core
	@bash scripts/check.sh

fuzz: ## a minute of fuzzing; FUZZ_SECONDS=600 for more
	@bash scripts/fuzz.sh

bench: ## the cost beside Envoy's own filters, into bench/RESULTS.md
	@bash scripts/bench.sh
