/** One gRPC call with an empty message: `grpc-call.js HOST:PORT /package.Service/Method`. Prints the answer, or the code and why. */
import { Client, credentials, status } from "@grpc/grpc-js";

const [address, path] = process.argv.slice(2);
const client = new Client(address, credentials.createInsecure());
const asIs = (bytes) => bytes;
client.makeUnaryRequest(
  path,
  asIs,
  asIs,
  Buffer.alloc(0),
  { deadline: Date.now() + 10_000 },
  (error, answer) => {
    process.stdout.write(error === null ? answer.toString() : `${status[error.code]} ${error.details}\n`);
    client.close();
  },
);
