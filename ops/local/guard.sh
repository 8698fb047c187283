#!/usr/bin/env bash
# Waits beside a script, and cleans up for it if it is killed so hard that it cannot do so itself.
#
#   guard.sh OWNER_PID OWNER_START_AND_BOOT GROUPS_FILE down|keep
#
# GROUPS_FILE has the process groups that the owner runs, one a line: `pid start-time boot-id`, as in
# the stack's pid files. `down`: the stack named by the environment is stopped as well.

# shellcheck source=ops/local/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
# shellcheck source=ops/local/process.sh
source "$LOCAL/process.sh"

owner=$1 identity=$2 groups=$3 stack=$4

while [[ $(process_identity "$owner") == "$identity" ]]; do sleep 1; done
if [[ -r $groups ]]; then
  while read -r pid start boot; do
    [[ $(process_identity "$pid") != "$start $boot" ]] || group_end "$pid"
  done <"$groups"
fi
if [[ $stack == down ]]; then "$REPO/ops/stack" down; fi
rm -f "$groups"
