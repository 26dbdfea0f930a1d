"""A request of the port as the line that starts it in the sidecar."""

from agentstream.consumers.harness.pi_protocol import Endpoint, ModelChoice, PythonToolLine, RunLine
from agentstream.consumers.harness.pi_tools import PythonTool
from agentstream.consumers.harness.pi_workspace import Place
from agentstream.consumers.harness.port import Credentials, HarnessRequest
from agentstream.schemas.base import unchecked

_run_line, _model, _endpoint_of = unchecked(RunLine), unchecked(ModelChoice), unchecked(Endpoint)


def run_line(
    request: HarnessRequest,
    place: Place | None,
    *,
    tools: tuple[PythonTool, ...],
    window: int | None,
    shell_prefix: tuple[str, ...],
) -> RunLine:
    """The line. A tool of `tools` that the request allows is answered here, any other must be Pi's.

    `place`: None over HTTP, where the server has one for it.
    """
    provider, _, model = (request.model or "/").partition("/")
    own = {tool.name: tool for tool in tools if tool.name in request.tools}
    return _run_line(
        run=request.attempt_id,
        mark=place.mark if place else None,
        workdir=str(place.directory) if place else None,
        model=_model(provider=provider, id=model),
        endpoint=_endpoint(request.credentials),
        messages=request.messages,
        agents_md=request.agents_md,
        tools=tuple(name for name in request.tools if name not in own),
        python_tools=tuple(
            PythonToolLine(name=tool.name, description=tool.description, parameters=dict(tool.parameters))
            for tool in own.values()
        ),
        ask_first=request.answer_tool is not None,
        thinking=request.thinking,
        max_turns=request.limits.max_turns,
        traceparent=request.trace.traceparent,
        tracestate=request.trace.tracestate,
        baggage=request.trace.baggage,
        apart=request.apart and place is None,
        window=window,
        shell_prefix=tuple(word.replace("{workdir}", str(place.directory)) for word in shell_prefix) if place else (),
    )


def _endpoint(credentials: Credentials | None) -> Endpoint:
    if credentials is None:
        return Endpoint()
    return _endpoint_of(
        api_key=credentials.api_key or None,
        base_url=credentials.base_url,
        api=credentials.api,
        headers=dict(credentials.headers),
        input_price=credentials.input_price,
        output_price=credentials.output_price,
    )
