"""Transcribes a WAV file through a running server, with the official OpenAI client."""

import base64
import glob
import sys
import wave

from openai import OpenAI

# Any 16-bit mono WAV of yours, or the recording that comes with the embedded model.
path = sys.argv[1] if len(sys.argv) > 1 else glob.glob(".venv/**/two_cities.wav", recursive=True)[0]
with wave.open(path) as recording:
    rate = recording.getframerate()
    audio = recording.readframes(recording.getnframes())

client = OpenAI(base_url="http://127.0.0.1:8000/v1", api_key="any")
with client.realtime.connect(extra_query={"intent": "transcription"}) as connection:
    audio_input = {
        "format": {"type": "audio/pcm", "rate": rate},
        "transcription": {"model": "gpt-4o-transcribe"},
        # Here we say ourselves where an utterance ends. For a microphone let the server find out:
        # {"type": "server_vad", "silence_duration_ms": 500}
        "turn_detection": None,
    }
    connection.session.update(session={"type": "transcription", "audio": {"input": audio_input}})
    for start in range(0, len(audio), 48_000):
        chunk = base64.b64encode(audio[start : start + 48_000]).decode()
        connection.input_audio_buffer.append(audio=chunk)
    connection.input_audio_buffer.commit()
    for event in connection:
        if event.type == "conversation.item.input_audio_transcription.completed":
            print(event.transcript)
            break
        if event.type == "error":
            sys.exit(event.error.message)
