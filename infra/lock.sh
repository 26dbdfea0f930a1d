#!/bin/sh
# Resolve every requirement anew: Python's with uv, Kafka's with Maven. The lock files name hashes and no index.
# Pins stay as they are where they can; `sh infra/lock.sh --upgrade` takes what is newest.
set -eu
cd "$(dirname "$0")/.."
upgrade=${1:-}
resolve() {
    uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
        --no-emit-index-url --no-emit-find-links --no-annotate --no-header $upgrade "$@"
}
resolve pyproject.toml -o requirements.txt
# Everything that can be installed is tested, the extras too.
resolve pyproject.toml --group dev --all-extras -c requirements.txt -o requirements-dev.txt
# With extras: pip asks for them to be pinned too.
resolve --no-strip-extras tests/backends/requirements.in -o tests/backends/requirements.txt

jars=$(mktemp -d)
trap 'rm -rf "$jars"' EXIT
mvn -q -B -C -Dstyle.color=never -f infra/kafka/pom.xml dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory="$jars"
(cd "$jars" && if command -v sha256sum >/dev/null; then sha256sum ./*.jar; else shasum -a 256 ./*.jar; fi) |
    sed 's| \./| |' | LC_ALL=C sort -k 2 >infra/kafka/jars.sha256
