# The gateway as an image for linux/amd64 and linux/arm64; no step depends on the architecture.
#
#   docker build --build-arg REVISION="$(git rev-parse HEAD)" --tag hybrid-router:0.1.0 .
#   docker run --read-only --cap-drop ALL --publish 8080:8080 --publish 8081:8081 --env HYBRID_ROUTER_API_KEY hybrid-router:0.1.0
#
# To run with a policy file of one's own, mount its folder over /etc/hybrid-router. The folder, not the file: an editor
# that replaces the file would leave a mount of the file alone with the old one, and no edit would be noticed.

# Both stages start from the same base: the environment is tied to the path and version of the base's Python.
FROM debian:bookworm-slim AS build
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3-venv \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY requirements.lock ./
RUN python3 -m venv /opt/hybrid-router \
    && /opt/hybrid-router/bin/pip install --no-compile --no-deps --require-hashes --only-binary :all: -r requirements.lock
COPY pyproject.toml README.md ./
COPY app app
COPY router router
COPY backends backends
COPY policies policies
COPY planning planning
COPY conformance conformance
COPY drills drills
# What only builds and installs goes; `pip check` says if something that runs needed it. Bytecode is compiled here, as
# nothing can write it later, and is valid whatever the time stamps, which not every builder keeps.
RUN /opt/hybrid-router/bin/pip install --no-compile --no-deps --no-build-isolation . \
    && /opt/hybrid-router/bin/pip uninstall --yes hatchling pathspec pluggy setuptools tomlkit trove-classifiers \
    && /opt/hybrid-router/bin/pip check \
    && /opt/hybrid-router/bin/pip uninstall --yes pip \
    && /opt/hybrid-router/bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/hybrid-router/lib

FROM debian:bookworm-slim
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="hybrid-router" \
      org.opencontainers.image.description="Decides, per request and on the device, whether a local model or a cloud GPU answers." \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# libstdc++6 is what the wheels take from the system, besides the C library.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libpython3-stdlib libstdc++6 python3-minimal \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build /opt/hybrid-router /opt/hybrid-router
COPY policies/samples/default.yaml /etc/hybrid-router/policy.yaml
COPY deploy/models/*.onnx /usr/share/hybrid-router/models/
COPY deploy/models/*.golden.npz /usr/share/hybrid-router/models/
COPY deploy/container/healthcheck.py /usr/share/hybrid-router/healthcheck.py

# It listens on every address, as it must to be reached from outside the container. The gateway does not start so
# without HYBRID_ROUTER_API_KEY: the image has no default key on purpose. ORT_DISABLE_TELEMETRY because ONNX Runtime's
# official builds report to their maker by default, and nothing may leave the site that the policy does not send.
ENV PATH="/opt/hybrid-router/bin:${PATH}" \
    ORT_DISABLE_TELEMETRY=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HYBRID_ROUTER_HOST=0.0.0.0 \
    HYBRID_ROUTER_POLICY=/etc/hybrid-router/policy.yaml \
    HYBRID_ROUTER_MODELS_DIR=/usr/share/hybrid-router/models \
    HYBRID_ROUTER_STATE_DIR=/var/lib/hybrid-router

# What a restart needs: what was spent of budgets, the last good policy file. Name a volume for it, or a new container starts
# from nothing.
RUN install -d -o 65532 -g 65532 /var/lib/hybrid-router
VOLUME /var/lib/hybrid-router
# A number, so that Kubernetes can tell that it is not root (runAsNonRoot). It owns no other folder, and needs none.
USER 65532:65532
EXPOSE 8080 8081
# /healthz, not /readyz: a gateway that has lost its backends recovers by itself, and a restart would not bring them
# back. The system's bare Python, since the command line of the gateway takes longer to import than to answer.
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s --retries=3 \
    CMD ["python3", "-IS", "/usr/share/hybrid-router/healthcheck.py"]
ENTRYPOINT ["hybrid-router"]
CMD ["serve"]
