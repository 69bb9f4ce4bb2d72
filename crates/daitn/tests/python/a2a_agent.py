"""An A2A 1.0 agent made with the unchanged a2a-sdk: repeats what it is told, in three pieces when it streams.

Prints `ready URL` on standard output when it listens. Ends when standard input closes.
"""

import asyncio
import socket
import sys

import uvicorn
from a2a.helpers.proto_helpers import new_task_from_user_message, new_text_artifact_update_event
from a2a.server.agent_execution import AgentExecutor
from a2a.server.request_handlers import DefaultRequestHandlerV2
from a2a.server.routes.agent_card_routes import create_agent_card_routes
from a2a.server.routes.jsonrpc_routes import create_jsonrpc_routes
from a2a.server.tasks import InMemoryTaskStore, TaskUpdater
from a2a.types import AgentCapabilities, AgentCard, AgentInterface, AgentSkill
from starlette.applications import Starlette


class Parrot(AgentExecutor):
    async def execute(self, context, event_queue):
        task = context.current_task or new_task_from_user_message(context.message)
        if context.current_task is None:
            await event_queue.enqueue_event(task)
        updater = TaskUpdater(event_queue, task.id, task.context_id)
        await updater.start_work()
        for piece in ("you said", " ", context.get_user_input()):
            await event_queue.enqueue_event(
                new_text_artifact_update_event(task.id, task.context_id, "echo", piece, artifact_id="echo", append=piece != "you said")
            )
        await updater.complete()

    async def cancel(self, context, event_queue):
        raise NotImplementedError


def card(url):
    return AgentCard(
        name="Parrot",
        description="Repeats what it is told",
        version="1.0.0",
        supported_interfaces=[AgentInterface(url=url + "/rpc", protocol_binding="JSONRPC", protocol_version="1.0")],
        capabilities=AgentCapabilities(streaming=True),
        default_input_modes=["text/plain"],
        default_output_modes=["text/plain"],
        skills=[AgentSkill(id="echo", name="Echo", description="Repeats", tags=["echo", "parrot"])],
    )


async def main():
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    agent_card = card(url)
    handler = DefaultRequestHandlerV2(agent_executor=Parrot(), task_store=InMemoryTaskStore(), agent_card=agent_card)
    app = Starlette(routes=create_agent_card_routes(agent_card) + create_jsonrpc_routes(handler, "/rpc"))
    server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    print("ready", url, flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    server.should_exit = True
    await serving


asyncio.run(main())
