"""A camera is its UUID; its address never carries a password."""

from __future__ import annotations

from uuid import UUID

import pytest

from videostore.domain.camera import Camera, check_stream_url, redact
from videostore.domain.errors import CameraInvalid, CameraNotRtsp, CredentialsInvalid, VideostoreError

URL = "rtsp://10.0.0.7/stream1"


@pytest.mark.parametrize("name", ["door", "hall-2", "0", "a.b_c", "x" * 63])
def test_plain_names_are_names(name):
    assert Camera(UUID(int=1), name, URL).name == name


@pytest.mark.parametrize("name", ["", "Door", "-x", "a b", "../x", "x" * 64, "a/b", "é"])
def test_what_could_be_mistaken_is_no_name(name):
    with pytest.raises(CameraInvalid):
        Camera(UUID(int=1), name, URL)


@pytest.mark.parametrize(
    "url", ["http://10.0.0.7/", "rtsp:", "rtsp:///stream", "10.0.0.7", "file:///etc/passwd", ""]
)
def test_only_rtsp_is_recorded(url):
    with pytest.raises(CameraNotRtsp, match="not an RTSP URL"):
        check_stream_url(url)


@pytest.mark.parametrize(
    "url", ["rtsp://admin:s3cret@10.0.0.7/", "rtsp://admin@10.0.0.7/", "http://u:s3cret@h/"]
)
def test_a_password_in_an_address_is_refused_and_never_repeated(url):
    with pytest.raises(VideostoreError) as caught:
        check_stream_url(url)
    assert "s3cret" not in f"{caught.value} {caught.value.hint}"
    assert "s3cret" not in redact(f"cannot open {url}: no")


def test_credentials_are_named_never_given():
    with pytest.raises(CredentialsInvalid):
        Camera(UUID(int=1), "door", URL, "admin:s3cret")


@pytest.mark.parametrize(
    ("group", "place"), [("Building B", ""), ("../x", ""), ("", "a\nb"), ("", "x" * 101)]
)
def test_group_and_place_are_one_line_each(group, place):
    Camera(UUID(int=1), "door", URL, group="building-b", place="Building B, étage 2")
    with pytest.raises(CameraInvalid):
        Camera(UUID(int=1), "door", URL, group=group, place=place)
