"""Python's own http.server, answering as the request's recipe says. Started with its port."""
import hashlib
import http.server
import json
import socket
import struct
import sys
import threading

PERIOD_BYTES = 65521
PATTERN = bytes((i * i * 31 + i * 7 + (i >> 8)) & 255 for i in range(PERIOD_BYTES))
stdout_lock = threading.Lock()


def body_of(case_id, size):
    start = case_id * 97 % PERIOD_BYTES
    return (PATTERN * (size // PERIOD_BYTES + 2))[start : start + size]


class Gone(Exception):
    pass


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def __getattr__(self, name):
        if name.startswith("do_"):
            return self.serve
        raise AttributeError(name)

    def log_message(self, *args):
        pass

    def handle_expect_100(self):
        # A client that is not asked for its body gets its answer first.
        recipe = self.recipe()
        return True if "early" in recipe else super().handle_expect_100()

    def recipe(self):
        # A proxy that damages it gets 500, and the run goes on.
        try:
            return json.loads(self.headers["X-Answer"])
        except (TypeError, json.JSONDecodeError):
            return {"status": 500, "framing": "length", "bytes": 0}

    def serve(self):
        recipe = self.recipe()
        self.sha1, self.size, self.trailers = hashlib.sha1(), 0, []
        body = self.chunks() if self.headers["Transfer-Encoding"] else self.pieces()
        end = "complete"
        try:
            if "early" in recipe:
                while self.size < recipe["early"]["after"]:
                    next(body)
                self.answer(recipe)
                if "hold" in recipe:
                    self.await_end("cut")
                if recipe["early"]["next"] == "keep":
                    for _ in body:
                        pass
            else:
                for _ in body:
                    pass
                if "hold" in recipe:
                    self.answer(recipe)
                    self.await_end("left")
        except (Gone, OSError, StopIteration) as gone:
            end = str(gone) if isinstance(gone, Gone) else "cut"
            self.close_connection = True
        self.report(end)
        if end == "complete" and "early" not in recipe:
            self.answer(recipe)

    def pieces(self):
        left = int(self.headers["Content-Length"] or 0)
        while left > 0:
            piece = self.take(min(left, 65536))
            left -= len(piece)
            yield

    def chunks(self):
        while True:
            line = self.rfile.readline()
            if not line:
                raise Gone("cut")
            left = int(line.split(b";")[0], 16)
            if left == 0:
                break
            while left > 0:
                left -= len(self.take(min(left, 65536)))
                yield
            self.rfile.readline()
        while (line := self.rfile.readline()) not in (b"\r\n", b""):
            name, value = line.decode("latin1").split(":", 1)
            self.trailers.append([name, value.strip()])

    def take(self, size):
        piece = self.rfile.read1(size)
        if not piece:
            raise Gone("cut")
        self.sha1.update(piece)
        self.size += len(piece)
        return piece

    def await_end(self, end):
        try:
            while self.rfile.read1(1):
                pass
        except OSError:
            pass
        raise Gone(end)

    def answer(self, recipe):
        case_id = int(self.headers["X-Case"])
        for status in recipe.get("interim", []):
            self.wfile.write(b"HTTP/1.1 %d Hint\r\nLink: </style.css>; rel=preload\r\n\r\n" % status)
        if recipe.get("hold") == "interim":
            return
        cut = recipe.get("cut")
        if cut and cut["after"] == -1:
            self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Half: ")
            self.break_off(cut["by"])
            return
        self.send_response(recipe["status"], recipe.get("reason"))
        for name, value in recipe.get("fields", []):
            self.send_header(name, value)
        framing, size = recipe["framing"], recipe["bytes"]
        if framing == "length":
            self.send_header("Content-Length", str(size))
        if framing == "chunked":
            self.send_header("Transfer-Encoding", "chunked")
        if framing == "close" or recipe.get("early", {}).get("next") == "close":
            self.send_header("Connection", "close")
        elif self.request_version == "HTTP/1.0" and not self.close_connection:
            self.send_header("Connection", "keep-alive")
        self.end_headers()
        if self.command == "HEAD" or recipe["status"] in (204, 304):
            return
        body = body_of(case_id, size)
        if framing == "chunked":
            parts = [body[at : at + 4000] for at in range(0, size, 4000)]
            body = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n"
            for name, value in recipe.get("trailers", []):
                body += f"{name}: {value}\r\n".encode("latin1")
            body += b"\r\n"
        stop = cut["after"] if cut else recipe.get("hold", len(body))
        self.wfile.write(body[:stop])
        if cut:
            self.break_off(cut["by"])

    def break_off(self, by):
        if by == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            self.rfile.close()
        self.close_connection = True

    def report(self, end):
        arrival = {
            "id": int(self.headers["X-Case"]),
            "run": self.headers["X-Run"],
            "method": self.command,
            "target": self.requestline.split(" ")[1],
            "version": self.request_version[5:],
            "fields": list(self.headers.items()),
            "body": {"bytes": self.size, "sha1": self.sha1.hexdigest()},
            "trailers": self.trailers,
            "end": end,
        }
        with stdout_lock:
            print(json.dumps(arrival), flush=True)


class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 128
    daemon_threads = True

    def handle_error(self, request, client_address):
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


server = Server(("0.0.0.0", int(sys.argv[1])), Handler)
print("listening", flush=True)
server.serve_forever()
