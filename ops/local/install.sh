#!/usr/bin/env bash
# Installs what is missing, and only that: Debian packages, then Kafka, the registry and ClickHouse
# into .millrace/cache, which every stack shares.
#
#   ops/local/install.sh [packages|services]
#
# A stack of containers needs the packages alone.

# shellcheck source=ops/local/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

PACKAGES_TO_RUN=(ca-certificates curl kcat maven postgresql python3-venv)
PACKAGES_TO_BUILD=(cmake g++ make pkg-config libssl-dev zlib1g-dev libzstd-dev libcurl4-openssl-dev)

install_packages() { # package...
  local package missing=() sudo=()
  if ! command -v dpkg-query >/dev/null; then
    say "no Debian or Ubuntu: taking it that java 17, ${PACKAGES_TO_RUN[*]} are there"
    return
  fi
  for package in "$@"; do
    [[ $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) == installed ]] ||
      missing+=("$package")
  done
  command -v java >/dev/null || missing+=(java)
  ((${#missing[@]})) || return 0

  if ((EUID != 0)); then
    command -v sudo >/dev/null ||
      die "$EXIT_SERVICE" "missing packages: ${missing[*]}; install them, or run this as root or with sudo"
    sudo=(sudo)
  fi
  say "installing Debian packages: ${missing[*]}"
  apt_get update -qq
  local i
  for i in "${!missing[@]}"; do
    [[ ${missing[$i]} != java ]] || missing[i]=$(java_package)
  done
  # The package would create a cluster on 5432 and start it: nobody asked for that one. The note to
  # it is taken back whatever happens, so an interrupt has to wait for that.
  local no_cluster=/etc/postgresql-common/createcluster.d/millrace.conf
  local status=0 interrupted=0 traps
  traps=$(trap -p INT TERM HUP)
  trap 'interrupted=1' INT TERM HUP
  "${sudo[@]}" mkdir -p "${no_cluster%/*}"
  echo 'create_main_cluster = false' | "${sudo[@]}" tee "$no_cluster" >/dev/null
  apt_get install -y -qq --no-install-recommends "${missing[@]}" || status=$?
  "${sudo[@]}" rm -f "$no_cluster"
  "${sudo[@]}" rmdir --ignore-fail-on-non-empty "${no_cluster%/*}"
  trap - INT TERM HUP
  eval "$traps"
  ((!interrupted)) || kill -INT "$$"
  ((status == 0)) || die "$EXIT_SERVICE" "apt-get could not install: ${missing[*]} (see above)"
}

apt_get() {
  local log
  log=$(mktemp)
  "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive NEEDRESTART_MODE=a UCF_FORCE_CONFFOLD=1 \
    apt-get -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 "$@" </dev/null >"$log" 2>&1 || {
    local status=$?
    tail -n 15 "$log" >&2
    rm -f "$log"
    return $status
  }
  rm -f "$log"
}

java_package() { # the oldest of Debian's that is new enough
  local package
  for package in openjdk-17-jre-headless openjdk-21-jre-headless default-jre-headless; do
    if [[ -n $(apt-cache show "$package" 2>/dev/null) ]]; then break; fi
  done
  echo "$package"
}

# A folder counts once its marker is there: an interrupted download is begun again.
# The folder's name has its recipe's hash, so a changed recipe is another folder.
recipe_hash() { cat "$@" | sha256sum | cut -c 1-8; }

cached() { [[ -e $1/.complete ]]; }

KAFKA_LIBS=$CACHE_DIR/kafka-$KAFKA_VERSION-$(recipe_hash "$LOCAL/kafka/pom.xml")
REGISTRY_APP=$CACHE_DIR/apicurio-$REGISTRY_VERSION-${REGISTRY_SHA256:0:8}
CLICKHOUSE_VENV=$CACHE_DIR/chdb-core-$CHDB_CORE_VERSION-$(recipe_hash "$LOCAL/clickhouse/requirements.txt")

maven() {
  # Not into ~/.m2: what these scripts download stays under .millrace. -C: a bad checksum fails.
  local log=$CACHE_DIR/maven.log
  mvn -B -q -C -Dmaven.repo.local="$CACHE_DIR/m2" "$@" >"$log" 2>&1 || {
    tail -n 15 "$log" >&2
    return 1
  }
}

install_kafka() {
  cached "$KAFKA_LIBS" && return
  rm -rf "$KAFKA_LIBS"
  local started
  started=$(now_ms)
  maven -f "$LOCAL/kafka/pom.xml" -Dkafka.version="$KAFKA_VERSION" \
    dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory="$KAFKA_LIBS" ||
    { say "Kafka $KAFKA_VERSION could not be downloaded (see above)" && return "$EXIT_SERVICE"; }
  touch "$KAFKA_LIBS/.complete"
  say "  Kafka $KAFKA_VERSION downloaded in $(seconds_since "$started")"
}

install_registry() {
  cached "$REGISTRY_APP" && return
  rm -rf "$REGISTRY_APP"
  local started archive=$REGISTRY_APP/apicurio-registry-app-$REGISTRY_VERSION-all.tar.gz
  started=$(now_ms)
  mkdir -p "$REGISTRY_APP"
  # Plugin 2.10, as newer ones insist on the artifact's parent POM, which Maven Central lacks.
  # From a folder without a pom.xml, so that it belongs to no project.
  (cd "$REGISTRY_APP" &&
    maven org.apache.maven.plugins:maven-dependency-plugin:2.10:copy \
      -Dartifact="io.apicurio:apicurio-registry-app:$REGISTRY_VERSION:tar.gz:all" \
      -DoutputDirectory="$REGISTRY_APP" &&
    echo "$REGISTRY_SHA256  $archive" | sha256sum --check --quiet >&2 &&
    tar xzf "$archive" && rm "$archive") ||
    { say "Apicurio $REGISTRY_VERSION could not be downloaded (see above)" && return "$EXIT_SERVICE"; }
  touch "$REGISTRY_APP/.complete"
  say "  Apicurio registry $REGISTRY_VERSION downloaded in $(seconds_since "$started")"
}

install_clickhouse() {
  cached "$CLICKHOUSE_VENV" && return
  rm -rf "$CLICKHOUSE_VENV"
  local started python=/usr/bin/python3
  started=$(now_ms)
  [[ -x $python ]] || python=python3
  { "$python" -m venv "$CLICKHOUSE_VENV" &&
    "$CLICKHOUSE_VENV/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps \
      --no-cache-dir --only-binary :all: --require-hashes -r "$LOCAL/clickhouse/requirements.txt"; } >&2 ||
    { say "chdb-core $CHDB_CORE_VERSION could not be installed (see above)" && return "$EXIT_SERVICE"; }
  touch "$CLICKHOUSE_VENV/.complete"
  say "  ClickHouse (chdb-core $CHDB_CORE_VERSION) downloaded in $(seconds_since "$started")"
}

install_java_parts() {
  install_kafka && install_registry && rm -rf "$CACHE_DIR/m2"
}

# Downloads side by side, under a lock: two stacks that start at once share them.
install_services() {
  if cached "$KAFKA_LIBS" && cached "$REGISTRY_APP" && cached "$CLICKHOUSE_VENV"; then return; fi
  say "downloading the services into $CACHE_DIR"
  mkdir -p "$CACHE_DIR"
  exec 7>"$CACHE_DIR/install.lock"
  flock 7
  job_start install_java_parts
  job_start install_clickhouse
  jobs_wait || exit "$EXIT_SERVICE"
  exec 7>&-
}

if [[ ${BASH_SOURCE[0]} == "$0" ]]; then
  trap 'jobs_kill; exit 130' INT TERM HUP
  case ${1:-all} in
  all | packages | services) ;;
  *) die "$EXIT_USAGE" "usage: ops/local/install.sh [packages|services]" ;;
  esac
  if [[ ${1:-all} != services ]]; then
    install_packages "${PACKAGES_TO_RUN[@]}" "${PACKAGES_TO_BUILD[@]}"
  fi
  if [[ ${1:-all} != packages && $(stack_kind) == local ]]; then install_services; fi
fi
