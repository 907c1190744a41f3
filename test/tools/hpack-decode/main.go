// Decodes header blocks with Go's own HPACK. Each line of the input is one connection, {"table": bytes, "blocks": [base64]};
// each line of the output is what its blocks hold, [[base64 of a name, of its value, …]], or a string that says why not.
package main

import (
	"bufio"
	"encoding/json"
	"os"

	"golang.org/x/net/http2/hpack"
)

type connection struct {
	Table  uint32   `json:"table"`
	Blocks [][]byte `json:"blocks"`
}

func main() {
	input := bufio.NewReaderSize(os.Stdin, 1<<20)
	output := json.NewEncoder(os.Stdout)
	for decoder := json.NewDecoder(input); decoder.More(); {
		var each connection
		if err := decoder.Decode(&each); err != nil {
			panic(err)
		}
		output.Encode(decode(each))
	}
}

func decode(each connection) any {
	lists := make([][][]byte, 0, len(each.Blocks))
	// The table begins at the protocol's 4,096 bytes; a larger limit allows the encoder to say that it uses more.
	decoder := hpack.NewDecoder(4096, nil)
	decoder.SetAllowedMaxDynamicTableSize(each.Table)
	for _, block := range each.Blocks {
		fields, err := decoder.DecodeFull(block)
		if err != nil {
			return err.Error()
		}
		list := make([][]byte, 0, 2*len(fields))
		for _, field := range fields {
			list = append(list, []byte(field.Name), []byte(field.Value))
		}
		lists = append(lists, list)
	}
	return lists
}
