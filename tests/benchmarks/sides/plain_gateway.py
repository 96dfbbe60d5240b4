"""The way in over HTTP as it is often first built: FastAPI, a queue and a dictionary in memory, and one thread that calls `predict`.

It is given what favours it: whoever waits is answered from the event loop as soon as the thread is done, with no polling, and
pictures wait in the queue as the bytes that came.
"""

import asyncio
import json
import queue
import socket
import sys
import threading
import uuid
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
import uvicorn
from fastapi import FastAPI, UploadFile
from fastapi.responses import JSONResponse

_WARM = 8


@dataclass(slots=True)
class Job:
    """A picture, and who waits for its boxes."""

    content: bytes
    done: "asyncio.Future[dict[str, Any]]"
    id: str = field(default_factory=lambda: uuid.uuid4().hex)


class Service:
    """The queue, the dictionary and the thread."""

    def __init__(self, model: str) -> None:
        # Not by our own import of it: that sets how torch's threads wait, and users have what torch has by default.
        from ultralytics import YOLO

        self._model = YOLO(model, task="detect")
        self._jobs: queue.Queue[Job] = queue.Queue()
        self._results: dict[str, dict[str, Any]] = {}
        for _ in range(_WARM):
            self._predict(np.zeros((480, 640, 3), np.uint8))
        threading.Thread(target=self._work, daemon=True).start()

    def app(self) -> FastAPI:
        """Submit and wait, submit and ask later, ask."""
        app = FastAPI()

        async def detect(file: UploadFile, *, wait: bool = True) -> JSONResponse:
            job = Job(await file.read(), asyncio.get_running_loop().create_future())
            self._jobs.put(job)
            return JSONResponse(await job.done) if wait else JSONResponse({"id": job.id}, 202)

        async def result(job_id: str) -> JSONResponse:
            return JSONResponse(self._results.get(job_id, {"status": "queued"}))

        app.post("/detect")(detect)
        app.get("/results/{job_id}")(result)
        return app

    def _work(self) -> None:
        while True:
            job = self._jobs.get()
            image = cv2.imdecode(np.frombuffer(job.content, np.uint8), cv2.IMREAD_COLOR)
            answer = {"id": job.id, "status": "completed", "detections": self._predict(image)}
            self._results[job.id] = answer
            job.done.get_loop().call_soon_threadsafe(job.done.set_result, answer)

    def _predict(self, image: Any) -> list[dict[str, Any]]:
        boxes = self._model.predict(image, conf=0.25, iou=0.7, max_det=300, imgsz=640, verbose=False, device="cpu")[
            0
        ].boxes
        numbers = zip(boxes.xyxy.tolist(), boxes.conf.tolist(), boxes.cls.tolist(), strict=True)
        return [{"box": box, "score": score, "class_id": int(class_id)} for box, score, class_id in numbers]


def main() -> None:
    """Serve on a free port of loopback, which is said when everything is warm."""
    task = json.loads(sys.argv[1])
    service = Service(task["model"])
    listener = socket.create_server(("127.0.0.1", 0), backlog=512)
    print(json.dumps({"url": f"http://127.0.0.1:{listener.getsockname()[1]}"}), flush=True)
    server = uvicorn.Server(uvicorn.Config(service.app(), log_level="warning", access_log=False))
    server.run(sockets=[listener])


if __name__ == "__main__":
    main()
