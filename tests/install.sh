#!/bin/sh
# Debian's packages for the tests: Slurm for the profile, Chromium for the report. Does nothing where they are there.
#
#   tests/install.sh PACKAGE...
#
# No service is started: the tests start their own daemons and stop them again.
set -eu
missing=
for package in "$@"; do
    dpkg-query --show --showformat='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing="$missing $package"
done
[ -n "$missing" ] || exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "not installed, and installing needs root and apt:$missing" >&2
    exit 1
fi
echo "installing$missing"
policy=/usr/sbin/policy-rc.d made=
if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
    made=$policy
fi
trap 'rm -f $made' EXIT
export DEBIAN_FRONTEND=noninteractive
get="timeout 600 apt-get -o Acquire::Retries=2 -o Acquire::http::Timeout=30"  # no network: an error, not a wait
$get update -qq
# shellcheck disable=SC2086
$get install -qq -y --no-install-recommends $missing >/dev/null
