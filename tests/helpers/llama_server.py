"""A real llama.cpp server that serves a GGUF file on loopback:  python llama_server.py FILE PORT

It runs in a process of its own until that is killed, and writes a line when it listens.
"""

import sys
import threading

import xllamacpp

params = xllamacpp.CommonParams()
params.model.path, params.port, params.hostnames = sys.argv[1], int(sys.argv[2]), ["127.0.0.1"]
params.model_alias, params.n_ctx, params.n_parallel, params.ui = {"gemma"}, 4096, 1, False
params.cpuparams.n_threads = 1
server = xllamacpp.Server(params)
print("listening", flush=True)
threading.Event().wait()
