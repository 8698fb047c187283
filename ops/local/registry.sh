# shellcheck shell=bash
# Apicurio registry. Its state is a Kafka topic (kafkasql-journal), so it is as durable as the events
# are, and there is nothing to wipe. It starts only when the broker answers.

registry_start() {
  process_start registry env QUARKUS_HTTP_HOST=127.0.0.1 QUARKUS_HTTP_PORT="$REGISTRY_PORT" \
    QUARKUS_LOG_LEVEL=WARN QUARKUS_LOG_CONSOLE_JSON=false \
    APICURIO_STORAGE_KIND=kafkasql \
    APICURIO_KAFKASQL_BOOTSTRAP_SERVERS="$(brokers_list)" \
    java -Xmx512m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Xshare:auto -Djava.awt.headless=true \
    -Djava.io.tmpdir="$(registry_tmp)" \
    -jar "$REGISTRY_APP/apicurio-registry-app-$REGISTRY_VERSION-runner.jar"
  wait_ready registry 90 registry_answers
}

registry_tmp() { mkdir -p "$STACK_DIR/tmp" && printf '%s' "$STACK_DIR/tmp"; }

# Ready, not only open: while it reads its journal it denies schemas that it has.
registry_answers() {
  curl -fsS -m 2 "http://127.0.0.1:$REGISTRY_PORT/health/ready"
}

registry_stop() { process_stop registry TERM 15; }
registry_wipe() { rm -rf "$STACK_DIR/tmp"; }
registry_where() { echo "127.0.0.1:$REGISTRY_PORT"; }
registry_version() { echo "Apicurio $REGISTRY_VERSION"; }
