#!/usr/bin/env bash
# Fuzzes every target in fuzz/, or only the named ones, for FUZZ_SECONDS (60) in total. Stable Rust is sufficient,
# because coverage counters come from LLVM, the fuzzer is libFuzzer, and safe Rust rarely needs sanitizers.
. "$(dirname "$0")/tools.sh"
need_cargo
need c++ g++

seconds="${FUZZ_SECONDS:-60}"
targets="$*"
[ -n "$targets" ] || targets="$(sed -n 's|^path = "targets/\(.*\)\.rs"|\1|p' fuzz/Cargo.toml)"
[ -n "$targets" ] || die "fuzz/Cargo.toml names no target"
each=$((seconds / $(wc -w <<<"$targets")))
[ "$each" -ge 1 ] || each=1

say "building the fuzz targets"
coverage="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters"
coverage="$coverage -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares"
host="$(host_triple)"
RUSTFLAGS="--cfg fuzzing $coverage" \
  cargo build -p fuzz --profile fuzz --locked --target "$host" --target-dir "$target/fuzz"

# The corpus is stored outside the clone, so that each run continues where the last one stopped.
log="$(mktemp)"
failed=""
for name in $targets; do
  corpora=("$cache/corpus/$name")
  artifacts="fuzz/artifacts/$name/"
  mkdir -p "${corpora[0]}" "$artifacts"
  [ ! -d "fuzz/seeds/$name" ] || corpora+=("fuzz/seeds/$name")
  if "$target/fuzz/$host/fuzz/$name" "${corpora[@]}" -max_total_time="$each" -timeout=10 -rss_limit_mb=2048 \
    -print_final_stats=1 -artifact_prefix="$artifacts" >"$log" 2>&1; then
    printf '%-20s %3s s, %s inputs\n' "$name" "$each" "$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")"
  else
    sed -n '/panicked\|ERROR/,$p' "$log" | head -n 40 >&2
    printf '\nweir: %s failed; on one input: %s PATH\n' "$name" "$target/fuzz/$host/fuzz/$name" >&2
    failed="$failed $name"
  fi
done
rm -f "$log"
[ -z "$failed" ] || die "failed:$failed; the inputs are in fuzz/artifacts/"
