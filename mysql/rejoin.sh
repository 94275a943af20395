#!/bin/sh
# Starts a server of a group; one that died waits before. To the others it is a member until they expel it, some seven seconds after its
# death. One that comes earlier is turned away, and when it is expelled just then, nobody ever answers it.
#   rejoin.sh OPTIONS COMMAND…: OPTIONS says whether it looks for its group by itself; the current folder is that of its data
set -eu
options=$1
shift
# A server that ends well removes this file.
if [ -e server.pid ] && grep -q start_on_boot=ON "$options"; then
  # In steps, because this shell heeds a signal between two of them; and as the first process of a container only where it says so.
  trap 'exit 143' TERM
  for _ in 1 2 3 4 5 6 7 8; do sleep 1; done
fi
exec "$@"
