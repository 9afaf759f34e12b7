"""nginx as a plain proxy: kept connections, no log, no policy. What one core can do at most, the ceiling."""

import itertools
import os
import signal
import subprocess
from pathlib import Path

from bench.contenders import CONNECTIONS_MAX, READY_PATH, Absent, Contender, Ports, Setup
from tools.debian import find

_CONFIG = """\
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
worker_rlimit_nofile {files};
events {{ worker_connections {files}; }}
http {{
  access_log off;
  keepalive_requests 1000000000;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  upstream provider {{ server 127.0.0.1:{upstream}; keepalive 512; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{data} backlog=4096;
    location = {ready} {{ return 200; }}
    location / {{
      proxy_pass http://provider;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_buffering off;  # or streams would wait for a buffer to fill; costs nothing measurable on small answers
      proxy_read_timeout {timeout}s;
    }}
  }}
}}
"""


class Nginx(Contender):
    name = "nginx"
    setup = "plain proxy, kept connections, no log; reloaded by SIGHUP"

    def version(self) -> str:
        done = subprocess.run([_program(), "-v"], capture_output=True, text=True, timeout=10)
        return done.stderr.strip().rpartition("nginx/")[2]

    def prepare(self, folder: Path, ports: Ports) -> Setup:
        config = folder / "nginx.conf"
        timeouts = itertools.cycle((600, 601))

        def write() -> None:
            config.write_text(
                _CONFIG.format(
                    folder=folder,
                    files=2 * CONNECTIONS_MAX,
                    upstream=ports.upstream,
                    data=ports.data,
                    ready=READY_PATH,
                    timeout=next(timeouts),
                )
            )

        def change(pid: int) -> None:
            write()
            os.kill(pid, signal.SIGHUP)

        write()
        command = [_program(), "-p", str(folder), "-e", str(folder / "error.log"), "-c", str(config)]
        return Setup(command, change=change)


def _program() -> str:
    program = find("nginx")
    if program is None:
        raise Absent("nginx is not installed (Debian: nginx-light)")
    return program
