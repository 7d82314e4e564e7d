#!/usr/bin/env bash
# Debian packages that some suites and benchmarks need; installs those whose command is missing. No service is
# started. `npm test` says what it cannot run without them, `npm run test:all` counts it as failed.
set -euo pipefail
declare -A packages=(
  [cc]="gcc libc6-dev" [chromium]=chromium [curl]=curl [openssl]=openssl [python3]=python3 [wrk]=wrk
)
missing=()
for command in "${!packages[@]}"; do
  # shellcheck disable=SC2206 # One command may need several packages.
  command -v "$command" >/dev/null || missing+=(${packages[$command]})
done
[ "${#missing[@]}" = 0 ] && exit 0

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
  # 101: nothing is to be started or stopped.
  printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
  as_root chmod +x "$policy"
  trap 'as_root rm -f "$policy"' EXIT
fi
as_root apt-get update -qq
as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
