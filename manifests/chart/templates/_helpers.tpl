{{- define "weir.labels" -}}
app.kubernetes.io/name: {{ .Values.name }}
app.kubernetes.io/part-of: weir
{{- end }}

{{- define "weir.image" -}}
{{- $repository := required "image.repository is required: the name under which you pushed the adapter's image" .Values.image.repository -}}
{{- if .Values.image.digest -}}
{{ $repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ $repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end }}

{{- /* Not empty if there are Secrets with credentials for Redis. */ -}}
{{- define "weir.redisFiles" -}}
{{- if eq .Values.storage.type "redis" -}}
{{- with .Values.storage.redis -}}
{{- if or .passwordSecret .sentinelPasswordSecret .caSecret .certSecret }}files{{ end -}}
{{- end -}}
{{- end -}}
{{- end }}

{{- define "weir.replicas" -}}
{{- $isRedis := eq .Values.storage.type "redis" -}}
{{- if kindIs "invalid" .Values.replicas -}}
{{ ternary 2 1 $isRedis }}
{{- else if and (gt (int .Values.replicas) 1) (not $isRedis) -}}
{{- fail (printf "replicas is more than 1 with storage.type %s: each replica would count by itself. Set storage.type to redis" .Values.storage.type) -}}
{{- else -}}
{{ int .Values.replicas }}
{{- end -}}
{{- end }}

{{- /* The DNS name on the adapter's certificate. */ -}}
{{- define "weir.host" -}}
{{ .Values.name }}.{{ .Release.Namespace }}.svc
{{- end }}

{{- define "weir.digest" -}}
{{- if not (regexMatch "^[0-9a-f]{64}$" .Values.module.digest) -}}
{{- fail (printf "module.digest is %q: expected the SHA-256 of the module, 64 hexadecimal digits in lower case" .Values.module.digest) -}}
{{- end -}}
{{ .Values.module.digest }}
{{- end }}

{{- /* Where proxies fetch the module. */ -}}
{{- define "weir.moduleUrl" -}}
http://{{ include "weir.host" . }}.{{ .Values.clusterDomain }}:8080/weir-{{ include "weir.digest" . }}.wasm
{{- end }}

{{- /* Envoy's cluster for the adapter, without its TLS. */ -}}
{{- define "weir.cluster" -}}
name: limitador-adapter
type: STRICT_DNS
connect_timeout: 0.5s
# gRPC needs HTTP/2. The ping closes a connection to a node that went silent, and the next connection goes to
# another replica.
typed_extension_protocol_options:
  envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
    "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
    explicit_http_config:
      http2_protocol_options:
        connection_keepalive: {interval: 1s, timeout: 1s}
# The maximum number of concurrent calls: one per request that waits for the adapter. The default of 1024 would reject
# further calls.
circuit_breakers:
  thresholds:
  - {max_requests: 100000, max_pending_requests: 100000}
# After three calls in a row without a response, Envoy reconnects. This is sooner than the ping would detect it.
outlier_detection:
  consecutive_gateway_failure: 3
  enforcing_consecutive_gateway_failure: 100
  interval: 1s
  base_ejection_time: 1s
  max_ejection_time: 1s
  max_ejection_percent: 100
load_assignment:
  cluster_name: limitador-adapter
  endpoints:
  - lb_endpoints:
    - endpoint:
        address: {socket_address: {address: {{ include "weir.host" . }}.{{ .Values.clusterDomain }}, port_value: 8081}}
{{- end }}

{{- /* A gateway of the list with its defaults; fails with its path if something is wrong. */ -}}
{{- define "weir.gateway" -}}
{{- $at := printf "gateways[%d]" .index -}}
{{- $controllers := list "EnvoyGateway" "Istio" -}}
{{- $given := .gateway -}}
{{- if not (has $given.controller $controllers) -}}
{{- fail (printf "%s.controller is %q: expected EnvoyGateway or Istio" $at (toString $given.controller)) -}}
{{- end -}}
{{- $defaults := dict
  "listeners" (list "http") "failureMode" "Allow" "maxBytes" 16777216 "usagePath" "" "accessLog" false
  "identityKey" (ternary "people" "payload" (eq $given.controller "EnvoyGateway"))
  "resourceName" (printf "weir-%s" (required (printf "%s.name is required: the Gateway's name" $at) $given.name)) -}}
{{- if and (eq $given.controller "EnvoyGateway") (not $given.namespace) -}}
{{- fail (printf "%s.namespace is required: the Gateway's namespace" $at) -}}
{{- end -}}
{{- toYaml (merge (deepCopy $given) $defaults) -}}
{{- end }}

{{- /* Not empty if usage records are kept; `files` if the adapter reads files for them. */ -}}
{{- define "weir.usage" -}}
{{- with .Values.usage -}}
{{- if and .url .urlSecret }}{{ fail "usage has both url and urlSecret: which PostgreSQL?" }}{{ end -}}
{{- if and .passwordSecret (not .url) (not .urlSecret) }}{{ fail "usage.passwordSecret is set, but neither usage.url nor usage.urlSecret" }}{{ end -}}
{{- if and .url (not (regexMatch "^postgres(ql)?://" .url)) }}{{ fail "usage.url must be postgres://USER@HOST[:PORT]/DATABASE" }}{{ end -}}
{{- if or .url .urlSecret }}{{ ternary "files" "true" (or (not (empty .passwordSecret)) (not (empty .caSecret))) }}{{ end -}}
{{- end -}}
{{- end }}

{{- define "weir.redisUrl" -}}
{{- $redis := .Values.storage.redis -}}
{{- if $redis.deploy -}}
{{- if $redis.url }}{{ fail "storage.redis has both url and deploy: which Redis?" }}{{ end -}}
redis://redis:6379
{{- else -}}
{{ required "storage.type is redis: storage.redis.url, urlSecret or deploy is required" $redis.url }}
{{- end -}}
{{- end }}

{{- /* The filter, of .root and .gateway. */ -}}
{{- define "weir.filter" -}}
"@type": type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm
config:
  name: weir
  root_id: weir
  # If the module traps, its VM is recreated. Until then, requests are answered with 503.
  failure_policy: FAIL_RELOAD
  # Lets a request wait for its body (requestBody below).
  allow_on_headers_stop_iteration: true
  vm_config:
    vm_id: weir
    runtime: envoy.wasm.runtime.v8
    # Otherwise Envoy would reuse the present module with the same vm_id in place of one that it has not fetched yet.
    configuration:
      "@type": type.googleapis.com/google.protobuf.StringValue
      value: {{ include "weir.digest" .root | quote }}
    code:
      remote:
        http_uri:
          # The adapter serves the digest of its module at /weir.wasm.sha256.
          uri: {{ include "weir.moduleUrl" .root }}
          cluster: weir-wasm
          timeout: 10s
        sha256: {{ include "weir.digest" .root | quote }}
        # Without this, a proxy that starts before the adapter answers 503 until its listener changes. With it,
        # the proxy becomes ready when the module is there, and a running one keeps its old module until then.
        retry_policy:
          num_retries: 1000000
          retry_back_off: {base_interval: 0.5s, max_interval: 3s}
  configuration:
    "@type": type.googleapis.com/google.protobuf.Struct
    value:
      adapter: {cluster: limitador-adapter}
      requestBody: {access: Buffer, maxBytes: {{ int64 .gateway.maxBytes }}}
      # Allow or Deny, until the first plan has arrived. Afterwards each policy's failureMode applies.
      failureMode: {{ .gateway.failureMode }}
      {{- if eq .gateway.controller "Istio" }}
      # The claims that a RequestAuthentication has verified. Clients cannot write to this metadata.
      {{- else }}
      # The claims that the SecurityPolicy's JWT provider with this name has verified. Envoy Gateway stores them there.
      {{- end }}
      identity: {metadata: envoy.filters.http.jwt_authn, key: {{ .gateway.identityKey }}}
      # The path on which callers may read their own usage (docs/usage.md), for example /weir/usage.
      {{- if .gateway.usagePath }}
      usagePath: {{ .gateway.usagePath | quote }}
      {{- else }}
      # usagePath: /weir/usage
      {{- end }}
      # Writes the usage of each exchange to Envoy's filter state, for access logs (docs/access-log.md).
      {{- if .gateway.accessLog }}
      accessLog: true
      {{- else }}
      # accessLog: true
      {{- end }}
{{- end }}

{{- /* A number of bytes, as people write it. */ -}}
{{- define "weir.quantity" -}}
{{- if mod (int64 .) 1048576 }}{{ int64 . | quote }}{{ else }}{{ div (int64 .) 1048576 }}Mi{{ end -}}
{{- end }}
