"""Auricle: a self-hosted realtime speech-to-text server for clients of OpenAI's Realtime transcription API."""

__version__ = "0.1.0"
