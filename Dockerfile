# If you name the base image by its digest, every build uses the same base. For example:
#
#     docker build --build-arg PYTHON=python:3.15-slim@sha256:... .
ARG PYTHON=python:3.15-slim
FROM ${PYTHON} AS python


FROM python AS builder
# Set this argument to install packages from a mirror. The hashes in the lock files are checked for every index.
ARG PIP_INDEX_URL
# If this argument is the commit's time, every build of the commit has the same bytes. scripts/image sets it.
ARG SOURCE_DATE_EPOCH
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /build
COPY requirements/build.lock requirements/server.lock requirements/
RUN python -m venv tools \
    && tools/bin/pip install --require-hashes --no-deps --only-binary :all: -r requirements/build.lock
RUN python -m venv --without-pip /opt/wxauth \
    && tools/bin/pip --python /opt/wxauth/bin/python install \
        --require-hashes --no-deps --only-binary :all: -r requirements/server.lock --no-compile \
    && python -m compileall -q --invalidation-mode unchecked-hash /opt/wxauth/lib
# .dockerignore excludes all files that the build doesn't need.
COPY . .
RUN tools/bin/pip wheel --no-index --no-deps --no-build-isolation --wheel-dir wheel ./clients/python . \
    && tools/bin/pip --python /opt/wxauth/bin/python install --no-index --no-deps --no-compile wheel/*.whl \
    && python -m compileall -q --invalidation-mode unchecked-hash /opt/wxauth/lib/python3*/site-packages/wxauth* \
    && /opt/wxauth/bin/wxauth --version


FROM python
ARG SOURCE_DATE_EPOCH
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="wxauth" \
      org.opencontainers.image.description="WeChat mini-program login as a service" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}"
# This step removes pip, so that nothing can be installed in a container. The user has a fixed id, because you need to
# know the id to set runAsUser or the owner of a file.
RUN python -m pip uninstall --yes --root-user-action=ignore pip \
    && rm -r "$(python -c 'import ensurepip, os; print(os.path.dirname(ensurepip.__file__))')" \
    && useradd --uid 10001 --user-group --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin wxauth
COPY --from=builder /opt/wxauth /opt/wxauth
# The build has already compiled all modules. Python writes nothing at run time, so the file system can be read-only.
ENV PATH=/opt/wxauth/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    WXAUTH_HOST=::
USER 10001:10001
WORKDIR /
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["wxauth", "alive"]
ENTRYPOINT ["wxauth"]
CMD ["serve"]
