# An image without a shell, and in it one static program that can ask whether it is healthy.
ARG IMAGE
FROM busybox:1.37.0-musl AS busybox

FROM ${IMAGE}
COPY --from=busybox /bin/busybox /busybox
