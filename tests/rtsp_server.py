"""An RTSP server that is not ours, for the conformance tests: gst-rtsp-server, through its GI bindings.

Runs under the system's Python, which has them: ``rtsp_server.py [--login USER PASSWORD] PATH=FILE[,FILE]…``
serves files (MP4 of H.264 or H.265, AAC with ADTS headers, WAV of G.711; their suffix says which) from their
beginning for each client, several of one path as tracks of one stream, with a login behind a digest. Prints
its port; ends with its standard input.
"""

import argparse
import sys
import threading

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtsp, GstRtspServer  # noqa: E402 - versions are required first

PACKED = {
    "h264": "qtdemux ! h264parse ! rtph264pay pt=96",
    "h265": "qtdemux ! h265parse ! rtph265pay pt=96",
    "aac": "aacparse ! rtpmp4gpay pt=97",
    "pcm_mulaw": "wavparse ! rtppcmupay",
    "pcm_alaw": "wavparse ! rtppcmapay",
}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--login", nargs=2)
    parser.add_argument("films", nargs="+")
    options = parser.parse_args()
    Gst.init(None)
    server = GstRtspServer.RTSPServer(service="0", address="127.0.0.1")
    if options.login:
        auth = GstRtspServer.RTSPAuth()
        auth.set_supported_methods(GstRtsp.RTSPAuthMethod.DIGEST)
        token = GstRtspServer.RTSPToken()
        token.set_string("media.factory.role", "user")
        auth.add_digest(*options.login, token)
        server.set_auth(auth)
    for pair in options.films:
        path, _, files = pair.partition("=")
        factory = GstRtspServer.RTSPMediaFactory()
        tracks = [
            f"filesrc location={file} ! {PACKED[file.rpartition('.')[2]]} name=pay{number}"
            for number, file in enumerate(files.split(","))
        ]
        factory.set_launch(f"( {' '.join(tracks)} )")
        if options.login:
            permissions = GstRtspServer.RTSPPermissions()
            permissions.add_permission_for_role("user", "media.factory.access", True)
            permissions.add_permission_for_role("user", "media.factory.construct", True)
            factory.set_permissions(permissions)
        server.get_mount_points().add_factory(f"/{path}", factory)
    server.attach(None)
    sys.stdout.write(f"{server.get_bound_port()}\n")
    sys.stdout.flush()
    loop = GLib.MainLoop()
    threading.Thread(target=lambda: (sys.stdin.read(), loop.quit()), daemon=True).start()
    loop.run()


main()
