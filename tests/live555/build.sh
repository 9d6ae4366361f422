#!/bin/sh
# Builds live555's RTSP server (server.cpp) into a virtual environment, for the conformance tests: build.sh VENV
# Its source comes as the package liblivemedia (LGPL). It runs as a program of its own and is never shipped.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
venv=$(cd "$1" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
echo "liblivemedia==1.0.5 --hash=sha256:564f65501ea5e823e5c53b1847ce3f41bd7b71ee2e9f3ba154a7e955817dfb48" >source
"$venv/bin/pip" download -q --no-deps --no-binary liblivemedia --require-hashes -r source -d .
tar xzf liblivemedia-*.tar.gz --strip-components 1

flags="-w -DSOCKLEN_T=socklen_t -DNO_OPENSSL=1"
for part in UsageEnvironment BasicUsageEnvironment groupsock liveMedia; do
    flags="$flags -I$work/$part/include"
done
mkdir objects && cd objects
gcc -c $flags ../groupsock/inet.c ../liveMedia/rtcp_from_spec.c
ls ../UsageEnvironment/*.cpp ../BasicUsageEnvironment/*.cpp ../groupsock/*.cpp ../liveMedia/*.cpp |
    xargs -P "$(nproc)" -n 12 g++ -std=c++20 -c $flags
g++ -std=c++20 $flags "$here/server.cpp" ./*.o -o "$venv/bin/live555"
