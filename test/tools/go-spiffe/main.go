// A program that has its identity from the SPIFFE Workload API by go-spiffe, the clients' usual library. It says what it sees in JSON, one
// object a line, and ends with code 1 and the error when the library does not accept it.
//
//	go-spiffe x509 COUNT             so many states of its certificate, as they come
//	go-spiffe bundles                the X.509 bundles
//	go-spiffe jwt AUDIENCE           a token: fetched, verified by the library, and by the Workload API
//	go-spiffe validate AUDIENCE JWT  by the Workload API alone
//	go-spiffe jwt-bundles COUNT      so many states of the JWT bundles
//	go-spiffe serve ADDRESS          mutual TLS by spiffetls; says where it listens, answers each line with who asks
//	go-spiffe dial ADDRESS SPIFFE-ID mutual TLS by spiffetls to a server that must be this one
//	go-spiffe raw METHOD [KEY=VALUE] one call with this metadata only; prints the status
//
// SPIFFE_ENDPOINT_SOCKET says where the Workload API is.
package main

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/jwtbundle"
	"github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// For everything that a test waits for; it ends the program.
const patience = 60 * time.Second

func main() {
	if len(os.Args) < 2 {
		fail(errors.New("say what: x509, bundles, jwt, validate, jwt-bundles, serve, dial or raw"))
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var err error
	switch args := os.Args[2:]; os.Args[1] {
	case "x509":
		err = watchX509(ctx, number(args[0]))
	case "bundles":
		err = showBundles(ctx)
	case "jwt":
		err = showJWT(ctx, args[0])
	case "validate":
		err = validate(ctx, args[0], args[1])
	case "jwt-bundles":
		err = watchJWTBundles(ctx, number(args[0]))
	case "serve":
		err = serve(args[0])
	case "dial":
		err = dial(ctx, args[0], args[1])
	case "raw":
		err = raw(ctx, args[0], args[1:])
	default:
		err = fmt.Errorf("%s is none of what this program does", os.Args[1])
	}
	if err != nil {
		fail(err)
	}
}

type x509Watcher struct {
	left int
	done chan error
}

func (w *x509Watcher) OnX509ContextUpdate(c *workloadapi.X509Context) {
	svid := c.DefaultSVID()
	// The library has parsed it; that it chains to the bundle only peers find out.
	id, _, err := x509svid.Verify(svid.Certificates, c.Bundles)
	if err != nil {
		w.done <- err
		return
	}
	key, isECDSA := svid.PrivateKey.(*ecdsa.PrivateKey)
	if !isECDSA {
		w.done <- fmt.Errorf("the key is a %T", svid.PrivateKey)
		return
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		w.done <- err
		return
	}
	bundle, err := c.Bundles.GetX509BundleForTrustDomain(id.TrustDomain())
	if err != nil {
		w.done <- err
		return
	}
	hash := sha256.Sum256(public)
	tell(map[string]any{
		"id":       id.String(),
		"svids":    len(c.SVIDs),
		"chain":    len(svid.Certificates),
		"serial":   svid.Certificates[0].SerialNumber.Text(16),
		"key":      hex.EncodeToString(hash[:]),
		"notAfter": svid.Certificates[0].NotAfter.Unix(),
		"bundles":  c.Bundles.Len(),
		"issuer":   svid.Certificates[len(svid.Certificates)-1].SerialNumber.Text(16),
		"roots":    len(bundle.X509Authorities()),
	})
	if w.left--; w.left == 0 {
		w.done <- nil
	}
}

func (w *x509Watcher) OnX509ContextWatchError(err error) {
	tell(map[string]any{"error": status.Code(err).String(), "reason": status.Convert(err).Message()})
	if w.left--; w.left == 0 {
		w.done <- nil
	}
}

func watchX509(ctx context.Context, count int) error {
	watcher := &x509Watcher{left: count, done: make(chan error, 1)}
	go func() {
		if err := workloadapi.WatchX509Context(ctx, watcher); err != nil {
			watcher.done <- err
		}
	}()
	return <-watcher.done
}

func showBundles(ctx context.Context) error {
	set, err := workloadapi.FetchX509Bundles(ctx)
	if err != nil {
		return err
	}
	for _, bundle := range set.Bundles() {
		tell(map[string]any{"trustDomain": bundle.TrustDomain().Name(), "roots": len(bundle.X509Authorities())})
	}
	return nil
}

func showJWT(ctx context.Context, audience string) error {
	svid, err := workloadapi.FetchJWTSVID(ctx, jwtsvid.Params{Audience: audience})
	if err != nil {
		return err
	}
	bundles, err := workloadapi.FetchJWTBundles(ctx)
	if err != nil {
		return err
	}
	byLibrary, err := jwtsvid.ParseAndValidate(svid.Marshal(), bundles, []string{audience})
	if err != nil {
		return err
	}
	byServer, err := workloadapi.ValidateJWTSVID(ctx, svid.Marshal(), audience)
	if err != nil {
		return err
	}
	tell(map[string]any{
		"id":        byLibrary.ID.String(),
		"validated": byServer.ID.String(),
		"audience":  byLibrary.Audience,
		"seconds":   int(time.Until(byLibrary.Expiry).Seconds()),
		"token":     svid.Marshal(),
	})
	return nil
}

func validate(ctx context.Context, audience, token string) error {
	svid, err := workloadapi.ValidateJWTSVID(ctx, token, audience)
	if err != nil {
		return err
	}
	tell(map[string]any{"id": svid.ID.String()})
	return nil
}

type jwtWatcher struct {
	left int
	done chan error
}

func (w *jwtWatcher) OnJWTBundlesUpdate(set *jwtbundle.Set) {
	for _, bundle := range set.Bundles() {
		tell(map[string]any{"trustDomain": bundle.TrustDomain().Name(), "keys": len(bundle.JWTAuthorities())})
	}
	if w.left--; w.left == 0 {
		w.done <- nil
	}
}

func (w *jwtWatcher) OnJWTBundlesWatchError(err error) {
	w.done <- err
}

func watchJWTBundles(ctx context.Context, count int) error {
	watcher := &jwtWatcher{left: count, done: make(chan error, 1)}
	go func() {
		if err := workloadapi.WatchJWTBundles(ctx, watcher); err != nil {
			watcher.done <- err
		}
	}()
	return <-watcher.done
}

func serve(address string) error {
	ctx := context.Background()
	listener, err := spiffetls.Listen(ctx, "tcp", address, tlsconfig.AuthorizeMemberOf(ownTrustDomain(ctx)))
	if err != nil {
		return err
	}
	tell(map[string]any{"listening": listener.Addr().String()})
	for {
		conn, err := listener.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer conn.Close()
			lines := bufio.NewScanner(conn)
			for lines.Scan() {
				peer, err := spiffetls.PeerIDFromConn(conn)
				if err != nil {
					return
				}
				fmt.Fprintf(conn, "%s from %s\n", lines.Text(), peer)
			}
		}()
	}
}

func ownTrustDomain(ctx context.Context) spiffeid.TrustDomain {
	svid, err := workloadapi.FetchX509SVID(ctx)
	if err != nil {
		fail(err)
	}
	return svid.ID.TrustDomain()
}

func dial(ctx context.Context, address, server string) error {
	id, err := spiffeid.FromString(server)
	if err != nil {
		return err
	}
	conn, err := spiffetls.Dial(ctx, "tcp", address, tlsconfig.AuthorizeID(id))
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := fmt.Fprintln(conn, "hello"); err != nil {
		return err
	}
	answer, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		return err
	}
	tell(map[string]any{"answer": strings.TrimSpace(answer)})
	return nil
}

func raw(ctx context.Context, method string, pairs []string) error {
	target := os.Getenv("SPIFFE_ENDPOINT_SOCKET")
	conn, err := grpc.NewClient(target, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer conn.Close()
	for _, pair := range pairs {
		key, value, _ := strings.Cut(pair, "=")
		ctx = metadata.AppendToOutgoingContext(ctx, key, value)
	}
	description := grpc.StreamDesc{ServerStreams: true}
	stream, err := conn.NewStream(ctx, &description, "/SpiffeWorkloadAPI/"+method)
	if err == nil {
		err = stream.SendMsg(&workload.X509SVIDRequest{})
	}
	if err == nil {
		err = stream.CloseSend()
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = stream.RecvMsg(&workload.X509SVIDResponse{})
	}
	tell(map[string]any{"status": status.Code(err).String(), "reason": status.Convert(err).Message()})
	return nil
}

func number(text string) int {
	value, err := strconv.Atoi(text)
	if err != nil {
		fail(err)
	}
	return value
}

func tell(what map[string]any) {
	line, err := json.Marshal(what)
	if err != nil {
		fail(err)
	}
	fmt.Println(string(line))
}

func fail(err error) {
	fmt.Fprintf(os.Stderr, "%s: %v\n", status.Code(err), err)
	os.Exit(1)
}
