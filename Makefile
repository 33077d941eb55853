# The one entry point. Each target is one script of scripts/, which installs what it misses.
.DEFAULT_GOAL := help
.PHONY: help build manifests release demo test test-release test-storages test-clients test-k8s test-envoy-gateway test-istio test-outages test-kills test-page test-monitoring screenshots cluster-test cluster k8s-up k8s-down kind-up kind-test kind-down crds chart docs reference check fuzz storm chaos bench bench-instructions

help: ## what there is
	@bash scripts/help.sh

manifests: ## dist/manifests: manifests/ for the module that was built, with its digest
	@bash scripts/manifests.sh

demo: ## a policy in a real Envoy on this machine, tokens used up; POLICY=FILE for a gateway with your own
	@bash scripts/demo.sh $(if $(POLICY),--policy $(POLICY))

build: ## dist/weir.wasm and dist/limitador-adapter
	@bash scripts/build.sh

release: ## dist/release: programs, images, chart, manifests, bill of materials, notes and checksums
	@bash scripts/release.sh

test: ## every check and test that needs no container engine
	@bash scripts/test.sh

test-release: ## dist/release alone: its checksums, programs and images, and its chart in a real cluster (as root)
	@bash scripts/test-release.sh

test-storages: ## the tests of the counters, with Valkey and Redis 8 in place of Redis 7
	@bash scripts/test-storages.sh

test-clients: ## SDKs and coding agents from PyPI and npm, through a real Envoy; CLIENTS=NAME for some of them
	@bash scripts/test-clients.sh

test-page: ## the adapter's page in Debian's Chromium, with a real Envoy; PAGE=NAME for some of the tests
	@bash scripts/test-page.sh

test-monitoring: ## the dashboard and the alerts with a real Prometheus; FAULT=NAME for some of the tests
	@bash scripts/test-monitoring.sh

screenshots: ## the pictures of docs/page.md anew
	@bash scripts/screenshots.sh

test-k8s: ## the tests against a real API server and etcd, without containers
	@bash scripts/test-k8s.sh

test-envoy-gateway: ## the manifests of Envoy Gateway, with its own control plane (built once: some ten minutes)
	@bash scripts/test-envoy-gateway.sh

test-istio: ## the manifests of Istio, with its own control plane and agent (built once: some ten minutes)
	@bash scripts/test-istio.sh

test-outages: ## what is away for two minutes, with each gateway (half an hour); GATEWAYS=envoy for some of them
	@bash scripts/test-outages.sh $(GATEWAYS)

test-kills: ## charges and usage records while the adapter, the database and Envoy are killed; KILLS=50 for fewer
	@bash scripts/test-kills.sh

cluster-test: ## Weir in a real cluster of two nodes, without a container engine (as root; built once: some twenty minutes)
	@bash scripts/cluster-test.sh

cluster: ## a shell beside such a cluster, which ends with it
	@bash scripts/cluster.sh bash

k8s-up: ## a real API server and etcd on this machine, for .k8s/kubeconfig
	@bash scripts/k8s.sh up

k8s-down: ## its end
	@bash scripts/k8s.sh down

kind-up: ## a kind cluster with Envoy Gateway (or WEIR_GATEWAY=istio), Weir and an LLM simulator; needs docker
	@bash scripts/kind.sh up

kind-test: ## the announced policy, through that cluster's gateway
	@bash scripts/kind.sh test

kind-down: ## its end
	@bash scripts/kind.sh down

crds: ## manifests/crds/ anew, from the Rust types
	@bash scripts/crds.sh

chart: ## the plain manifests and snapshots anew, from manifests/chart
	@bash scripts/chart.sh

docs: ## the site of docs/, in dist/site
	@bash scripts/docs.sh

reference: ## docs/reference/ anew, from the code's own tables
	@bash scripts/reference.sh

check: ## formatting, lints, the purity of the core
	@bash scripts/check.sh

fuzz: ## a minute of fuzzing; FUZZ_SECONDS=600 for more
	@bash scripts/fuzz.sh

storm: ## a minute of requests and answers that are made to take memory, beside honest ones
	@bash scripts/storm.sh

chaos: ## 1000 kills of the adapter, Redis and Envoy, and an audit of every charge (half an hour); KILLS=50 for fewer
	@bash scripts/chaos.sh

bench: ## the cost beside Envoy's own filters, into bench/RESULTS.md
	@bash scripts/bench.sh

bench-instructions: ## the WebAssembly instructions per request; BENCH_BEFORE=PATH compares another module
	@bash scripts/bench-instructions.sh
