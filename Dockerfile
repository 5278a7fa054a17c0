# The image of a node: one static binary and an empty data folder, nothing else. No shell, no libc, no package to update.
#
#   cargo xtask image            builds the static binary and lays out target/image
#   docker build -t starling:0.1.0 .      (or podman, or buildah)
#
# The binary is built outside: the build then needs no base image, and the image holds exactly what was tested.
FROM scratch

COPY target/image/starling /starling
# Owned by the user below, so that a fresh volume mounted here can be written.
COPY --chown=10001:10001 target/image/data /var/lib/starling

# A number, so that Kubernetes can see that it is not root.
USER 10001:10001

# Clients, probes and metrics, node to node.
EXPOSE 3000/tcp 3001/tcp 3002/udp
VOLUME /var/lib/starling

# SIGTERM is the drain.
STOPSIGNAL SIGTERM
ENTRYPOINT ["/starling"]
CMD ["serve"]
