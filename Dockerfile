# vipmesh as a container on the host's network; deploy/compose.yaml runs it.
#
# BASE is any image with Python 3.11 or later and pip, and with apt-get or nft and iptables-nft. Only the packages in the files
# *.lock are installed, if their hashes are those. A base that holds what setup.cfg needs, and setuptools, builds without a
# network: --build-arg BASE=my-base --build-arg LOCKED=no
ARG BASE=python:3.12-slim

FROM ${BASE} AS build
ARG LOCKED=yes
COPY . /src
WORKDIR /src
RUN python3 -m venv --system-site-packages --without-pip /opt/vipmesh \
 && if [ "${LOCKED}" = yes ]; then \
      python3 -m pip install --no-cache-dir --require-hashes -r requirements-build.lock \
      && python3 -m pip --python /opt/vipmesh/bin/python3 install --no-cache-dir --no-compile --require-hashes -r requirements.lock; \
    fi \
 && python3 -m pip --python /opt/vipmesh/bin/python3 install --no-compile --no-index --no-build-isolation .

FROM ${BASE}
# Source NAT, and the whole data plane where the kernel has no IPVS, are nftables rules. iptables-nft opens Docker's own rules.
RUN { command -v nft && command -v iptables-nft; } \
 || { apt-get update && apt-get install -y --no-install-recommends nftables iptables && rm -rf /var/lib/apt/lists/*; }
COPY --from=build /opt/vipmesh /opt/vipmesh
ENV PATH=/opt/vipmesh/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
VOLUME /var/lib/vipmesh
# Ends with the daemon: what is in the kernel goes on forwarding.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s CMD ["vipmesh", "status", "--json"]
ENTRYPOINT ["vipmesh"]
CMD ["run"]
