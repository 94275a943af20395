#!/bin/sh
# Starts a server of the group, in the place of the image's own script: that one sets up data by statements, and a member takes none
# before it is in its group. Accounts are made by init.sql, at every start, as the local cluster does it.
#   member.sh NAME: with what /etc/mysql/group/NAME.cnf says
set -eu
data=/var/lib/mysql

# The folder that is looked for comes last, so that an interrupted start begins anew.
if [ ! -d "$data/mysql" ]; then
  rm -rf "$data"/* "$data/.new"
  mysqld --initialize-insecure --datadir="$data/.new"
  for one in "$data"/.new/*; do
    if [ "$one" != "$data/.new/mysql" ]; then mv "$one" "$data/"; fi
  done
  mv "$data/.new/mysql" "$data/"
fi
# The others reach it by its address. A name is gone with its container, and a member hears nobody while it looks up a lost one, for seconds:
# the two that are left would take each other for lost.
address=$(sed -n "s/[[:space:]]*$HOSTNAME\$//p" /etc/hosts)
# A member that was filled by a copy of another one ends to start anew, if it knows that somebody does that for it.
export MYSQLD_PARENT_PID="$PPID"
cd "$data"
exec sh /etc/mysql/rejoin.sh /etc/mysql/group/joins.cnf \
  mysqld --defaults-extra-file="/etc/mysql/group/$1.cnf" --init-file=/run/secrets/init.sql --pid-file="$data/server.pid" \
  --loose-group_replication_local_address="$address:3306"
