#!/bin/sh
# Calls back members that have no place in their group, for as long as it runs. A member that starts looks for its group for a minute; one
# that did not find it then would stay out for ever.
#   healer.sh CLIENT OPTIONS HOST:PORT…: the client program, the file that tells it the password, and all members
# A person who wants a member to stay out tells it so: SET GLOBAL group_replication_start_on_boot = OFF; STOP GROUP_REPLICATION
set -u
client=$1 options=$2
shift 2
LOOK_EVERY=10
# A call that failed is likely to fail again, and each is a moment in which the group takes a member in and lets it go.
AFTER_A_FAILURE=60

# What a member answers within so many seconds; one that stands still takes connections, too.
ask() { # MEMBER SECONDS STATEMENT
  timeout "$2" "$client" --defaults-extra-file="$options" --host="${1%:*}" --port="${1##*:}" \
    --connect-timeout=2 --batch --skip-column-names --execute="$3"
}

# `serves` when it takes part in a majority; `out` when it has no place, is to have one, and is not looking for it already.
LOOK="
SELECT CASE
  WHEN SUM(member_state IN ('ONLINE', 'RECOVERING')) * 2 > COUNT(*) AND SUM(member_id = @@server_uuid AND member_state = 'ONLINE') THEN 'serves'
  WHEN SUM(member_id IN (@@server_uuid, '') AND member_state IN ('OFFLINE', 'ERROR')) AND @@group_replication_start_on_boot
    AND NOT EXISTS (SELECT * FROM performance_schema.threads
      WHERE name = 'thread/group_rpl/THD_delayed_initialization' OR processlist_info LIKE 'START GROUP_REPLICATION%') THEN 'out'
END
FROM performance_schema.replication_group_members"

# Never to begin another group.
CALL="STOP GROUP_REPLICATION; SET GLOBAL group_replication_bootstrap_group = OFF; START GROUP_REPLICATION"

look() { # MEMBER
  ask "$1" 5 "$LOOK" 2> /dev/null
}

while :; do
  pause=$LOOK_EVERY serves=''
  for member; do
    if [ "$(look "$member")" = serves ]; then
      serves=$member
      break
    fi
  done
  for member; do
    # Looked at just before: while another one was called back, a person may have told this one to stay out.
    if [ -n "$serves" ] && [ "$(look "$member")" = out ]; then
      echo "$(date -u +%FT%TZ) calling back $member"
      ask "$member" 120 "$CALL" || pause=$AFTER_A_FAILURE
    fi
  done
  sleep "$pause"
done
