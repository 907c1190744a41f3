// Go's own net/http, answering as the request's recipe says. Started with its port.
package main

import (
	"bufio"
	"crypto/sha1"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sort"
	"strconv"
	"sync"
)

type recipe struct {
	Status   int             `json:"status"`
	Framing  string          `json:"framing"`
	Bytes    int             `json:"bytes"`
	Fields   [][2]string     `json:"fields"`
	Interim  []int           `json:"interim"`
	Trailers [][2]string     `json:"trailers"`
	Early    *early          `json:"early"`
	Cut      *cut            `json:"cut"`
	Hold     json.RawMessage `json:"hold"`
}

type early struct {
	After int    `json:"after"`
	Next  string `json:"next"`
}

type cut struct {
	After int    `json:"after"`
	By    string `json:"by"`
}

type bodySeen struct {
	Bytes int    `json:"bytes"`
	Sha1  string `json:"sha1"`
}

type arrival struct {
	ID       int         `json:"id"`
	Run      string      `json:"run"`
	Method   string      `json:"method"`
	Target   string      `json:"target"`
	Version  string      `json:"version"`
	Fields   [][2]string `json:"fields"`
	Body     bodySeen    `json:"body"`
	Trailers [][2]string `json:"trailers"`
	End      string      `json:"end"`
}

const periodBytes = 65521

var pattern = make([]byte, periodBytes)
var stdout sync.Mutex

func bodyOf(id, size int) []byte {
	body := make([]byte, size)
	for at, from := 0, id*97%periodBytes; at < size; from = 0 {
		at += copy(body[at:], pattern[from:])
	}
	return body
}

// Go keeps no order of names.
func sorted(fields http.Header) [][2]string {
	pairs := [][2]string{}
	for name, values := range fields {
		for _, value := range values {
			pairs = append(pairs, [2]string{name, latin1(value)})
		}
	}
	sort.SliceStable(pairs, func(i, j int) bool { return pairs[i][0] < pairs[j][0] })
	return pairs
}

// JSON has no bytes above ASCII that are not UTF-8.
func latin1(value string) string {
	runes := make([]rune, 0, len(value))
	for i := 0; i < len(value); i++ {
		runes = append(runes, rune(value[i]))
	}
	return string(runes)
}

func serve(w http.ResponseWriter, r *http.Request) {
	var asked recipe
	if err := json.Unmarshal([]byte(r.Header.Get("X-Answer")), &asked); err != nil {
		http.Error(w, err.Error(), 500)
		return
	}
	id, _ := strconv.Atoi(r.Header.Get("X-Case"))
	end := "complete"
	hash := sha1.New()
	size := 0
	read := func(until int) {
		buffer := make([]byte, 32768)
		for until < 0 || size < until {
			n, err := r.Body.Read(buffer)
			hash.Write(buffer[:n])
			size += n
			if err == io.EOF {
				return
			}
			if err != nil {
				end = "cut"
				return
			}
		}
	}
	if asked.Early != nil && asked.Hold != nil {
		read(asked.Early.After)
		answer(w, r, id, &asked)
		read(-1)
	} else {
		read(-1)
		if asked.Hold != nil {
			answer(w, r, id, &asked)
			<-r.Context().Done()
			end = "left"
		}
	}
	fields := r.Header.Clone()
	fields.Set("Host", r.Host)
	line, _ := json.Marshal(arrival{
		ID: id, Run: r.Header.Get("X-Run"), Method: r.Method, Target: r.RequestURI, Version: r.Proto[5:],
		Fields: sorted(fields), Body: bodySeen{size, hex.EncodeToString(hash.Sum(nil))},
		Trailers: sorted(r.Trailer), End: end,
	})
	stdout.Lock()
	fmt.Println(string(line))
	stdout.Unlock()
	if asked.Hold == nil {
		answer(w, r, id, &asked)
	}
}

func answer(w http.ResponseWriter, r *http.Request, id int, asked *recipe) {
	controller := http.NewResponseController(w)
	for _, status := range asked.Interim {
		w.Header().Set("Link", "</style.css>; rel=preload")
		w.WriteHeader(status)
		w.Header().Del("Link")
	}
	if string(asked.Hold) == `"interim"` {
		return
	}
	if asked.Cut != nil && asked.Cut.After == -1 {
		breakOff(w, asked.Cut.By, "HTTP/1.1 200 OK\r\nX-Half: ")
		return
	}
	for _, field := range asked.Fields {
		w.Header().Add(field[0], field[1])
	}
	if asked.Framing == "length" {
		w.Header().Set("Content-Length", strconv.Itoa(asked.Bytes))
	}
	w.WriteHeader(asked.Status)
	if r.Method == "HEAD" || asked.Status == 204 || asked.Status == 304 {
		return
	}
	body := bodyOf(id, asked.Bytes)
	if asked.Cut != nil {
		w.Write(body[:asked.Cut.After])
		controller.Flush()
		breakOff(w, asked.Cut.By, "")
		return
	}
	if asked.Hold != nil {
		held, _ := strconv.Atoi(string(asked.Hold))
		w.Write(body[:held])
		controller.Flush()
		return
	}
	if asked.Framing == "chunked" {
		controller.Flush()
	}
	w.Write(body)
	for _, field := range asked.Trailers {
		w.Header().Add(http.TrailerPrefix+field[0], field[1])
	}
}

func breakOff(w http.ResponseWriter, by, last string) {
	conn, buffered, err := w.(http.Hijacker).Hijack()
	if err != nil {
		panic(err)
	}
	finish(conn, buffered.Writer, by, last)
}

func finish(conn net.Conn, writer *bufio.Writer, by, last string) {
	writer.WriteString(last)
	writer.Flush()
	if by == "reset" {
		conn.(*net.TCPConn).SetLinger(0)
	}
	conn.Close()
}

func main() {
	for i := range pattern {
		pattern[i] = byte((i*i*31 + i*7 + (i >> 8)) & 255)
	}
	listener, err := net.Listen("tcp", "0.0.0.0:"+os.Args[1])
	if err != nil {
		panic(err)
	}
	fmt.Println("listening")
	panic(http.Serve(listener, http.HandlerFunc(serve)))
}
