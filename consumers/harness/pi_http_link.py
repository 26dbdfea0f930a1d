"""Requests to a Pi sidecar behind HTTP: its health, the lines of a run, and what is said to one that is under way.

link = HttpLink(HttpPlace(url=…, token=…)); stream = await link.open_run(raw, deadline=…); line = await stream.take()
"""

import asyncio
import logging
import ssl

import httpx
from pydantic import ValidationError

from agentstream.consumers.harness.pi_http_stream import Away, HttpPlace, RunStream, Trouble, bounded
from agentstream.consumers.harness.pi_protocol import (
    MAX_LINE_BYTES,
    PROTOCOL,
    CancelLine,
    Line,
    ReadyLine,
    ToolResultLine,
)
from agentstream.consumers.harness.sidecar_link import LineTooLong, SidecarUnavailable
from agentstream.schemas.errors import ErrorCode

logger = logging.getLogger(__name__)
_JSON = {"content-type": "application/json"}
_KEPT = 64
"""Connections that stay open between runs, at most."""


class WrongSidecar(SidecarUnavailable):
    """What answers is not a sidecar of ours: waiting does not help."""


class HttpLink:
    """Requests to one sidecar. To be closed."""

    def __init__(self, place: HttpPlace) -> None:
        self.place = place
        self._tls = ssl.create_default_context()
        self._client = self._new_client()
        self._free: list[httpx.AsyncClient] = []

    async def close(self) -> None:
        """To be called when no run is under way."""
        for client in (self._client, *self._free):
            await client.aclose()

    async def health(self) -> ReadyLine:
        """What it is, if it takes runs. Raises SidecarUnavailable, which says what to do."""
        name = self.place.name
        try:
            answer = await self._client.get("/health", timeout=self.place.connect_s)
        except httpx.HTTPError as error:
            raise SidecarUnavailable(
                f"no Pi sidecar answers at {name} ({type(error).__name__}): is `agentstream sidecar` running there?"
            ) from None
        if answer.status_code == httpx.codes.SERVICE_UNAVAILABLE:
            raise SidecarUnavailable(f"the Pi sidecar at {name} is stopping")
        try:
            ready = ReadyLine.model_validate_json(answer.content)
        except ValidationError:
            raise WrongSidecar(_wrong(name, answer.status_code)) from None
        if ready.protocol != PROTOCOL:
            raise WrongSidecar(
                f"the Pi sidecar at {name} speaks protocol {ready.protocol}, not {PROTOCOL}: run it in this version"
            )
        return ready

    async def open_run(self, raw: bytes, *, deadline: float) -> "RunStream":
        """Send a `run` line; waits for a sidecar that is away. Raises Trouble."""
        loop = asyncio.get_running_loop()
        patience, pause = loop.time() + self.place.restart_s, 0.1
        while True:
            try:
                return await self._open_once(raw, deadline)
            except Away:
                if loop.time() + pause >= min(patience, deadline):
                    raise
            await asyncio.sleep(pause)
            pause = min(pause * 2, 1.0)

    async def send(self, line: ToolResultLine) -> None:
        """Hand a run the answer of a tool. One that is lost, or meant for a run that is over, is logged.

        Raises LineTooLong.
        """
        raw = line.to_bytes()
        if len(raw) > MAX_LINE_BYTES:
            raise LineTooLong(f"a line of {len(raw)} bytes is longer than the sidecar reads")
        try:
            answer = await self._client.post("/run", content=raw, headers=_JSON)
        except httpx.HTTPError as error:
            logger.warning("the answer of a tool did not reach the sidecar: %s", type(error).__name__)
            return
        if answer.is_error:
            logger.warning("the sidecar did not take the answer of a tool (%d)", answer.status_code)

    async def cancel(self, run: str) -> None:
        """Return when nothing of a run is left there. Its connection was closed, which is what cancels it."""
        try:
            await self._client.post("/run", content=CancelLine(run=run).to_bytes(), headers=_JSON)
        except httpx.HTTPError as error:
            logger.warning("the sidecar did not say that a cancelled run is gone: %s", type(error).__name__)

    def _new_client(self) -> httpx.AsyncClient:
        token = {"authorization": f"Bearer {self.place.token}"} if self.place.token else {}
        return httpx.AsyncClient(
            base_url=self.place.url,
            headers={**token, "accept-encoding": "identity"},
            timeout=httpx.Timeout(self.place.silence_s, connect=self.place.connect_s),
            limits=httpx.Limits(max_connections=None),
            verify=self._tls,
            trust_env=False,
        )

    async def _open_once(self, raw: bytes, deadline: float) -> RunStream:
        client = self._free.pop() if self._free else self._new_client()
        try:
            response = await bounded(self._post(client, raw), deadline)
        except BaseException:
            await self._give_back(client)
            raise
        return RunStream(response, self.place, deadline, closed=lambda: self._give_back(client))

    async def _give_back(self, client: httpx.AsyncClient) -> None:
        # One client for each run at once: in a pool that runs share, each start and end looks at every connection for
        # every other one, and 64 runs at once were four times slower than one after the other.
        if len(self._free) < _KEPT:
            self._free.append(client)
        else:
            await client.aclose()

    @staticmethod
    async def _post(client: httpx.AsyncClient, raw: bytes) -> httpx.Response:
        request = client.build_request("POST", "/run", content=raw, headers=_JSON)
        try:
            response = await client.send(request, stream=True)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise Away("the Pi sidecar is not available") from error
        except httpx.HTTPError as error:
            # It may have begun; the run that lost its connection ends there.
            raise Trouble(ErrorCode.HARNESS_UNAVAILABLE, "the Pi sidecar did not answer") from error
        if response.status_code == httpx.codes.OK:
            return response
        try:
            await response.aread()
        except httpx.HTTPError:
            logger.warning("the sidecar's refusal (%d) could not be read", response.status_code)
        finally:
            await response.aclose()
        raise _refused(response)


def line_of(line: Line) -> bytes:
    """A line as a body. Raises Trouble if it is longer than the sidecar reads."""
    raw = line.to_bytes()
    if len(raw) > MAX_LINE_BYTES:
        detail = f"a line of {len(raw)} bytes is longer than the sidecar reads"
        raise Trouble(ErrorCode.PAYLOAD_TOO_LARGE, detail)
    return raw


def _refused(response: httpx.Response) -> Trouble:
    match response.status_code:
        case 503:
            return Away("the Pi sidecar is not available")
        case 401 | 403:
            detail = "the Pi sidecar refuses the worker's token"
            return Trouble(ErrorCode.HARNESS_UNAVAILABLE, detail, retriable=False)
        case 413:
            return Trouble(ErrorCode.PAYLOAD_TOO_LARGE, "the request is longer than the Pi sidecar reads")
        case 400 | 409:
            return Trouble(ErrorCode.INTERNAL, f"the Pi sidecar refused it: {_reason(response)}")
        case status if status >= 500:
            return Trouble(ErrorCode.HARNESS_UNAVAILABLE, f"the Pi sidecar answered with {status}")
        case status:
            detail = f"no Pi sidecar is at the worker's address: it answers with {status}"
            return Trouble(ErrorCode.HARNESS_UNAVAILABLE, detail, retriable=False)


def _reason(response: httpx.Response) -> str:
    try:
        return str(response.json()["error"]["detail"])[:300]
    except (ValueError, KeyError, TypeError, httpx.ResponseNotRead):
        return f"status {response.status_code}"


def _wrong(name: str, status: int) -> str:
    if status in (200, 401, 403):
        return f"the Pi sidecar at {name} refuses the token: AGENTSTREAM_PI_HTTP_TOKEN must be the same on both sides"
    return f"no Pi sidecar is at {name}: /health answers with {status}; look at AGENTSTREAM_PI_HTTP_URL"
