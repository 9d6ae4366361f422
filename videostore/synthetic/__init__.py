"""Cameras that are not there: a real RTSP server with a picture that can be checked frame by frame."""
