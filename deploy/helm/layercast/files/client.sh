# Gives the peer its folder; sets the node's container runtime up for it, or takes that back.
# ACTION setup or undo; RUNTIME containerd, crio, k3s or none; MIRROR the peer's URL; REGISTRIES separated by spaces;
# DATA the peer's folder, and HOST what stands for the node's root, as they are mounted.
set -eu
install -d -o 10001 -g 10001 -m 0700 "$DATA"
[ "$RUNTIME" != none ] || exit 0

if [ "$ACTION" = undo ]; then
    # A node that was never set up has nothing to take back, though another client of it may be. A run that was killed
    # has left its record under one of the other names.
    records="$HOST/var/lib/layercast/setup"
    record="$RUNTIME"
    # CRI-O shares its files with podman.
    [ "$RUNTIME" != crio ] || record=containers
    [ -d "$records/$record" ] || [ -d "$records/.$record.part" ] || [ -d "$records/.$record.old" ] || exit 0
    exec layercast setup "$RUNTIME" --root "$HOST" --undo
fi
set -- "$RUNTIME" --root "$HOST" --mirror "$MIRROR"
for registry in $REGISTRIES; do
    set -- "$@" --registry "$registry"
done
exec layercast setup "$@"
