"""The FastAPI extension: every HTTP function of this app takes its Request type and may stream."""

import asyncio

import azure.durable_functions as df
import azure.functions as func
from azurefunctions.extensions.http.fastapi import JSONResponse, Request, Response, StreamingResponse
from fastapi import HTTPException

app = df.DFApp(http_auth_level=func.AuthLevel.ANONYMOUS)
cancelled = asyncio.Event()


@app.route(route="count/{limit:int}", methods=["GET"])
async def count(req: Request) -> StreamingResponse:
    async def numbers():
        for number in range(int(req.path_params["limit"])):
            yield f"data: {number}\n\n"
            await asyncio.sleep(0)

    return StreamingResponse(numbers(), media_type="text/event-stream")


@app.route(route="upload", methods=["POST"])
async def upload(req: Request) -> JSONResponse:
    chunks, size = 0, 0
    async for chunk in req.stream():
        chunks += bool(chunk)
        size += len(chunk)
    return JSONResponse({"size": size, "several": chunks > 1, "query": dict(req.query_params), "url": str(req.url)})


@app.route(route="upper", methods=["POST"])
async def upper(req: Request) -> StreamingResponse:
    async def shout():
        async for chunk in req.stream():
            yield chunk.upper()

    return StreamingResponse(shout())


@app.route(route="forever")
async def forever(req: Request) -> StreamingResponse:
    async def ticks():
        try:
            while True:
                yield b"tick\n"
                await asyncio.sleep(0.01)
        finally:
            cancelled.set()

    return StreamingResponse(ticks())


@app.route(route="was_cancelled")
async def was_cancelled(req: Request) -> dict:
    await asyncio.wait_for(cancelled.wait(), 5)
    return {"cancelled": True}


@app.route(route="silent")
async def silent(req: Request) -> StreamingResponse:
    async def first_then_nothing():
        yield b"first"
        await asyncio.sleep(60)

    return StreamingResponse(first_then_nothing())


@app.route(route="breaks")
async def breaks(req: Request) -> StreamingResponse:
    async def half():
        yield b"half"
        raise ValueError("secret detail")

    return StreamingResponse(half())


@app.route(route="plain")
def plain(req: Request) -> str:
    return "text"


@app.route(route="teapot")
async def teapot(req: Request) -> Response:
    raise HTTPException(418, "short and stout")


@app.route(route="boom")
async def boom(req: Request) -> Response:
    raise ValueError("secret detail")


@app.route(route="head", methods=["GET", "HEAD"])
async def head(req: Request) -> Response:
    return Response("twelve chars", headers={"X-Seen": req.method})


@app.route(route="start", methods=["POST"])
@app.durable_client_input(client_name="client")
async def start(req: Request, client) -> JSONResponse:
    instance_id = await client.start_new("shout", client_input=(await req.body()).decode())
    status = await client.get_status(instance_id)
    while status.runtime_status.name not in {"Completed", "Failed"}:
        await asyncio.sleep(0.01)
        status = await client.get_status(instance_id)
    return JSONResponse({"id": instance_id, "output": status.output}, status_code=202)


@app.orchestration_trigger(context_name="context")
def shout(context: df.DurableOrchestrationContext):
    return (yield context.call_activity("to_upper", context.get_input()))


@app.activity_trigger(input_name="text")
def to_upper(text: str) -> str:
    return text.upper()
