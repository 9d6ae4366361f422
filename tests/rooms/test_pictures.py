"""Picture health: each fault is seen when it lasts, and nothing else is taken for one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from fractions import Fraction
from uuid import uuid4

import cv2
import numpy as np
import pytest

from tests.premises import ledger_in
from videostore import telemetry
from videostore.domain.ledger import Event
from videostore.ports import Packet, StreamInfo
from videostore.recorder.health import PictureHealth, decode
from videostore.recorder.pictures import Fault, Watch, look
from videostore.synthetic.stream import picture, read_frame_number, stream

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


class Hall:
    """A room with things in it, people who walk through, a sensor with noise and a light that is dimmed."""

    def __init__(self):
        self.luck = np.random.default_rng(7)
        room = cv2.GaussianBlur(self.luck.normal(0, 60, (360, 640)), (0, 0), 6) * 6 + 120
        for _ in range(25):
            x, y, w, h = self.luck.integers((0, 0, 20, 20), (560, 300, 120, 90))
            cv2.rectangle(
                room, (int(x), int(y)), (int(x + w), int(y + h)), float(self.luck.integers(20, 235)), -1
            )
        self.room = room

    def shot(self, number, *, light=1.0, people=3, turned=0.0):
        image = self.room.copy()
        if turned:
            turn = cv2.getRotationMatrix2D((320, 180), turned, 1.3)
            turn[:, 2] += 90
            image = cv2.warpAffine(image, turn, (640, 360), borderMode=cv2.BORDER_REFLECT)
        for person in range(people):
            at = int((number * 37 + person * 211) % 640), 180 + 40 * person
            cv2.ellipse(image, at, (14, 45), 0, 0, 360, 60.0 + 50 * person, -1)
        return self.seen(image * light)

    def seen(self, image):
        return np.clip(image + self.luck.normal(0, 2, image.shape), 0, 255).astype(np.uint8)


@pytest.fixture
def hall():
    return Hall()


def known(hall):
    """Return a watch that knows the hall."""
    watch = Watch()
    for number in range(30):
        watch.see(look(hall.shot(number)))
    assert watch.fault is None
    return watch


FAULTS = {
    Fault.BLACK: lambda hall, number: hall.seen(np.zeros((360, 640))),
    Fault.COVERED: lambda hall, number: hall.seen(np.full((360, 640), 90.0)),
    Fault.FROZEN: lambda hall, number: hall.room.clip(0, 255).astype(np.uint8),
    Fault.BLURRED: lambda hall, number: hall.seen(cv2.GaussianBlur(hall.room, (0, 0), 9)),
    Fault.MOVED: lambda hall, number: hall.shot(number, turned=35),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_that_lasts_is_seen_and_so_is_its_end(hall, fault):
    watch = known(hall)
    changes = [watch.see(look(FAULTS[fault](hall, number))) for number in range(6)]
    assert watch.fault is fault
    assert changes.count(True) == 1
    changes = [watch.see(look(hall.shot(number))) for number in range(6)]
    assert watch.fault is None
    assert changes.count(True) == 1


@pytest.mark.parametrize("fault", FAULTS)
def test_what_passes_is_no_fault(hall, fault):
    watch = known(hall)
    for number in range(2):
        assert not watch.see(look(FAULTS[fault](hall, number)))
    watch.see(look(hall.shot(5)))
    assert watch.fault is None


@pytest.mark.parametrize("light", [0.45, 0.7, 1.3])
def test_people_and_light_are_no_fault(hall, light):
    watch = known(hall)
    for number in range(20):
        assert not watch.see(look(hall.shot(number, light=light, people=number % 6)))


def test_a_camera_that_always_moves_is_not_said_to_have_moved():
    watch = Watch()
    luck = np.random.default_rng(3)
    for number in range(0, 6000, 97):
        shown = picture(number).astype(float) + luck.normal(0, 2, (360, 640))
        assert not watch.see(look(np.clip(shown, 0, 255).astype(np.uint8)))


# --- the thread ---


def keyframe(number, at, codec="h264"):
    film = stream(codec=codec)
    units = film.frames[number]
    data = units[0] if codec == "mjpeg" else b"".join(b"\x00\x00\x00\x01" + unit for unit in units)
    return StreamInfo(codec, 640, 360, Fraction(1, 90_000), b""), Packet(data, 0, True, at, None)


@pytest.mark.parametrize("codec", ["h264", "hevc", "mjpeg"])
def test_a_keyframe_of_each_codec_is_decoded_by_itself(codec):
    assert read_frame_number(decode(*keyframe(50, NOW, codec))) == 50


def test_a_fault_is_in_the_metrics_and_in_the_ledger_and_pictures_are_nowhere(tmp_path):
    ledger, camera = ledger_in(tmp_path), uuid4()
    health = PictureHealth(ledger, interval=MINUTE * 2 / 3)
    for minute in range(5):
        health.offer(camera, *keyframe(25, NOW + minute * MINUTE))  # the same picture each time
        health.offer(camera, *keyframe(50, NOW + minute * MINUTE + MINUTE / 2))  # too early: not looked at
        health.look()
    assert [(one.event, one.body["state"]) for one in ledger.records()] == [(Event.CAMERA_PICTURE, "frozen")]
    faults = telemetry.CAMERA_PICTURE_FAULT
    assert faults.labels(camera_id=str(camera), fault="frozen")._value.get() == 1
    assert faults.labels(camera_id=str(camera), fault="black")._value.get() == 0
    assert {path.suffix for path in tmp_path.rglob("*") if path.is_file()} <= {".key", ".jsonl", ".lock", ""}


def test_a_keyframe_that_cannot_be_decoded_is_passed_over(tmp_path):
    health = PictureHealth(ledger_in(tmp_path), interval=MINUTE)
    info, packet = keyframe(25, NOW)
    health.offer(uuid4(), info, Packet(b"nonsense", 0, True, NOW, None))
    health.look()
    assert packet.keyframe
