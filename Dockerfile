# An image of the program alone: docker build -t mha2mla . && docker run --rm -v "$PWD:/work" mha2mla convert MODEL OUT ...
# The program is linked statically, so that the image needs nothing else. Its user is that of the directory's files: --user "$(id -u)".
FROM debian:bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends git ca-certificates && rm -rf /var/lib/apt/lists/*
COPY . /source
WORKDIR /source
RUN tools/package.sh archive && mkdir /package && tar -xf dist/mha2mla-*.tar.gz --strip-components=1 -C /package && mkdir -m 1777 /package/tmp

FROM scratch
COPY --from=build /package/bin/mha2mla /bin/mha2mla
COPY --from=build /package/share/doc/mha2mla/licences /licences
COPY --from=build /package/tmp /tmp
WORKDIR /work
ENTRYPOINT ["/bin/mha2mla"]
