# shellcheck shell=bash
# Kafka: KRaft, one node that is broker and controller. Everything of a node is under its id, so
# that further nodes are further folders.

KAFKA_NODE=1

kafka_java() { # JVM and program arguments
  java -cp "$KAFKA_LIBS/*" -Djava.awt.headless=true "$@"
}

kafka_tool() { # class args...: a short-lived JVM
  kafka_java -Xmx256m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Xshare:auto \
    -Dlog4j2.configurationFile="$LOCAL/kafka/tools-log4j2.xml" "$@"
}

kafka_node_dir() { printf '%s' "$STACK_DIR/kafka/$KAFKA_NODE"; }

kafka_configure() {
  local dir text
  dir=$(kafka_node_dir)
  mkdir -p "$dir"
  text=$(<"$LOCAL/kafka/server.properties")
  text=${text//@NODE_ID@/$KAFKA_NODE}
  text=${text//@PORT@/$KAFKA_PORT}
  text=${text//@CONTROLLER_PORT@/$KAFKA_CONTROLLER_PORT}
  text=${text//@DATA_DIR@/$dir/data}
  printf '%s\n' "$text" >"$dir/server.properties"
  [[ -e $dir/.formatted ]] && return
  # Never formatted, or interrupted in the middle: from the start.
  rm -rf "$dir/data"
  local id
  id=$(head -c 16 /dev/urandom | base64 | tr '+/' 'AB' | tr -d '=')
  if ! kafka_tool kafka.tools.StorageTool format --standalone -t "$id" \
    -c "$dir/server.properties" >"$LOG_DIR/kafka-format.log" 2>&1; then
    say "ops/stack: kafka's data folder could not be formatted"
    log_tail kafka-format
    return "$EXIT_SERVICE"
  fi
  touch "$dir/.formatted"
}

kafka_start() {
  local dir
  dir=$(kafka_node_dir)
  mkdir -p "$LOG_DIR"
  kafka_configure
  process_start kafka java -Xms256m -Xmx1g -XX:+UseG1GC -XX:+ExitOnOutOfMemoryError -Xshare:auto \
    -Djava.awt.headless=true -Dlog4j2.configurationFile="$LOCAL/kafka/log4j2.xml" \
    -cp "$KAFKA_LIBS/*" kafka.Kafka "$dir/server.properties"
  # After a kill: the log's recovery, and the old session, which has to run out first.
  wait_ready kafka 90 kafka_answers
}

kafka_answers() {
  kcat -L -J -m 2 -b "127.0.0.1:$KAFKA_PORT" 2>/dev/null | grep -q "\"id\":$KAFKA_NODE,"
}

kafka_stop() { process_stop kafka TERM 30; }
kafka_wipe() { rm -rf "$STACK_DIR/kafka"; }
kafka_where() { echo "127.0.0.1:$KAFKA_PORT"; }
kafka_version() { echo "$KAFKA_VERSION"; }
