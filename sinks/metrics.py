"""Metrics of the sinks."""

from prometheus_client import Counter, Gauge

ws_connections = Gauge("sightstream_ws_connections", "Clients of the notifier, websocket and SSE.")
ws_sent_messages = Counter("sightstream_ws_sent_messages", "Messages written to clients.")
ws_disconnects = Counter("sightstream_ws_disconnects", "Connections that ended, by close code.", ["code"])
ws_queue_bytes = Gauge("sightstream_ws_queue_bytes", "Bytes that wait for clients.")
waits = Gauge("sightstream_waits", "Images whose outcomes requests wait for, each once for every request.")
waits_refused = Counter(
    "sightstream_waits_refused", "Waits that ended at once because too many wait already, or the process ends."
)
webhook_attempts = Counter("sightstream_webhook_attempts", "POSTs to callbacks, by what became of them.", ["outcome"])
webhooks_given_up = Counter("sightstream_webhooks_given_up", "Webhooks that nobody accepted.")
webhooks_in_flight = Gauge("sightstream_webhooks_in_flight", "POSTs to callbacks that run now.")
