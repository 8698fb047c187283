# shellcheck shell=bash
# Kafka: KRaft, one node that is broker and controller, or three. Everything of a node is under its
# id. The first node is the service `kafka`, the others are `kafka2` and `kafka3`.

kafka_java() { # JVM and program arguments
  java -cp "$KAFKA_LIBS/*" -Djava.awt.headless=true "$@"
}

kafka_tool() { # class args...: a short-lived JVM
  kafka_java -Xmx256m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Xshare:auto \
    -Dlog4j2.configurationFile="$LOCAL/kafka/tools-log4j2.xml" "$@"
}

node_service() { if (($1 == 1)); then echo kafka; else echo "kafka$1"; fi; }
node_dir() { printf '%s' "$STACK_DIR/kafka/$1"; }

node_port() { # node [CONTROLLER_]
  local key
  key=$(node_service "$1")
  key=${key^^}_${2:-}PORT
  printf '%s' "${!key}"
}

# How the nodes find their controllers. A single one is its own quorum from the format on; several
# are named, so that each can be formatted without the others.
kafka_quorum() {
  if (($(stack_brokers) == 1)); then
    echo "controller.quorum.bootstrap.servers=127.0.0.1:$KAFKA_CONTROLLER_PORT"
  else
    echo "controller.quorum.voters=1@127.0.0.1:$KAFKA_CONTROLLER_PORT,2@127.0.0.1:$KAFKA2_CONTROLLER_PORT,3@127.0.0.1:$KAFKA3_CONTROLLER_PORT"
  fi
}

# One id for all nodes, drawn by whoever comes first.
kafka_cluster_id() {
  local file=$STACK_DIR/kafka/cluster-id
  mkdir -p "${file%/*}"
  [[ -s $file ]] || (
    set -o noclobber
    head -c 16 /dev/urandom | base64 | tr '+/' 'AB' | tr -d '=' >"$file"
  ) 2>/dev/null || true
  until [[ -s $file ]]; do sleep 0.01; done
  cat "$file"
}

node_configure() { # node
  local dir text copies standalone=(--standalone)
  dir=$(node_dir "$1")
  copies=$(stack_brokers)
  mkdir -p "$dir"
  text=$(<"$LOCAL/kafka/server.properties")
  text=${text//@NODE_ID@/$1}
  text=${text//@PORT@/$(node_port "$1")}
  text=${text//@CONTROLLER_PORT@/$(node_port "$1" CONTROLLER_)}
  text=${text//@QUORUM@/$(kafka_quorum)}
  text=${text//@COPIES@/$copies}
  text=${text//@COPIES_MIN@/$((copies == 1 ? 1 : copies - 1))}
  text=${text//@DATA_DIR@/$dir/data}
  # Of several, another one has its partitions by then: before the members of a group, whose sessions
  # are 6 s, give each other up.
  ((copies == 1)) || text=${text//broker.session.timeout.ms=9000/broker.session.timeout.ms=4000}
  printf '%s\n' "$text" >"$dir/server.properties"
  [[ -e $dir/.formatted ]] && return
  # Never formatted, or interrupted in the middle: from the start.
  rm -rf "$dir/data"
  ((copies == 1)) || standalone=()
  if ! kafka_tool kafka.tools.StorageTool format "${standalone[@]}" -t "$(kafka_cluster_id)" \
    -c "$dir/server.properties" >"$LOG_DIR/$(node_service "$1")-format.log" 2>&1; then
    say "ops/stack: kafka's data folder could not be formatted"
    log_tail "$(node_service "$1")-format"
    return "$EXIT_SERVICE"
  fi
  touch "$dir/.formatted"
}

node_start() { # node
  node_launch "$1"
  node_wait "$1"
}

node_launch() { # node
  local heap=1g
  (($(stack_brokers) == 1)) || heap=512m
  mkdir -p "$LOG_DIR"
  node_configure "$1"
  process_start "$(node_service "$1")" java -Xms256m -Xmx$heap -XX:+UseG1GC \
    -XX:+ExitOnOutOfMemoryError -Xshare:auto -Djava.awt.headless=true \
    -Dlog4j2.configurationFile="$LOCAL/kafka/log4j2.xml" \
    -cp "$KAFKA_LIBS/*" kafka.Kafka "$(node_dir "$1")/server.properties"
}

# After a kill: the log's recovery, and the old session, which has to run out first.
node_wait() { # node
  wait_ready "$(node_service "$1")" 90 node_answers "$1"
}

node_answers() { # node: it is a broker that the cluster knows
  kcat -L -J -m 2 -b "127.0.0.1:$(node_port "$1")" 2>/dev/null | grep -q "\"id\":$1,"
}

node_stop() { # node
  if (($(stack_brokers) == 1)); then
    process_stop kafka TERM 30
  else
    # When all stop, the last ones have no majority left to say goodbye to.
    process_stop "$(node_service "$1")" TERM 8 KILL 10
  fi
}

kafka_start() { node_start 1; }
kafka2_start() { node_start 2; }
kafka3_start() { node_start 3; }
kafka_answers() { node_answers 1; }
kafka2_answers() { node_answers 2; }
kafka3_answers() { node_answers 3; }
kafka_stop() { node_stop 1; }
kafka2_stop() { node_stop 2; }
kafka3_stop() { node_stop 3; }
kafka_where() { echo "127.0.0.1:$KAFKA_PORT"; }
kafka2_where() { echo "127.0.0.1:$KAFKA2_PORT"; }
kafka3_where() { echo "127.0.0.1:$KAFKA3_PORT"; }
kafka_version() { echo "$KAFKA_VERSION"; }
kafka2_version() { echo "$KAFKA_VERSION"; }
kafka3_version() { echo "$KAFKA_VERSION"; }
kafka_wipe() { rm -rf "$STACK_DIR/kafka"; }
kafka2_wipe() { :; }
kafka3_wipe() { :; }
