// Command imports prints what the imports of a program register in its global
// registries. It imports etcd's client and, with build tag snapshot, package
// snapshot as well. The test beside it requires that both print the same.
package main

import (
	"context"
	"encoding/json"
	"expvar"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"runtime"
	"slices"

	"github.com/prometheus/client_golang/prometheus"
	_ "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/balancer"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/emptypb"
)

// Some registries have no list, only a lookup by name.
var (
	paths = []string{
		"/", "/debug/events", "/debug/fgprof", "/debug/pprof/", "/debug/pprof/profile", "/debug/requests", "/debug/vars",
		"/health", "/healthz", "/livez", "/metrics", "/readyz", "/version",
	}
	codecs    = []string{"json", "proto", "raw"}
	schemes   = []string{"dns", "etcd-endpoints", "google-c2p", "passthrough", "unix", "unix-abstract", "xds"}
	balancers = []string{
		"grpclb", "least_request_experimental", "outlier_detection_experimental", "pick_first", "ring_hash_experimental",
		"rls_experimental", "round_robin", "weighted_round_robin", "weighted_target_experimental",
	}
)

func main() {
	goroutines := runtime.NumGoroutine()
	compressors, err := grpcCompressors()
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(map[string][]string{
			"expvar variables":      expvarVariables(),
			"flags":                 flags(),
			"goroutines":            {fmt.Sprint(goroutines)},
			"gRPC balancers":        described(balancers, func(name string) any { return balancer.Get(name) }),
			"gRPC codecs":           described(codecs, func(name string) any { return encoding.GetCodecV2(name) }),
			"gRPC codecs, old":      described(codecs, func(name string) any { return encoding.GetCodec(name) }),
			"gRPC compressors":      compressors,
			"gRPC resolvers":        append(described(schemes, func(name string) any { return resolver.Get(name) }), resolver.GetDefaultScheme()),
			"HTTP handlers":         described(paths, httpHandler),
			"log":                   {log.Prefix(), fmt.Sprint(log.Flags()), fmt.Sprint(log.Writer() == os.Stderr)},
			"Prometheus collectors": prometheusCollectors(),
			"protobuf files":        protobufFiles(),
		})
	}
	if err != nil {
		log.Fatal(err)
	}
}

// described returns for each name the type that is registered under it.
func described(names []string, get func(name string) any) []string {
	var found []string
	for _, name := range names {
		found = append(found, fmt.Sprintf("%s: %T", name, get(name)))
	}
	return found
}

func expvarVariables() (names []string) {
	expvar.Do(func(kv expvar.KeyValue) { names = append(names, kv.Key) })
	return names
}

func flags() (names []string) {
	flag.VisitAll(func(f *flag.Flag) { names = append(names, f.Name) })
	return names
}

// prometheusCollectors returns all registered collectors, including those that have
// no series yet and are therefore not gathered.
func prometheusCollectors() (descriptions []string) {
	ch := make(chan *prometheus.Desc)
	go func() {
		prometheus.DefaultRegisterer.(*prometheus.Registry).Describe(ch)
		close(ch)
	}()
	for d := range ch {
		descriptions = append(descriptions, d.String())
	}
	slices.Sort(descriptions)
	return descriptions
}

func protobufFiles() (names []string) {
	protoregistry.GlobalFiles.RangeFiles(func(f protoreflect.FileDescriptor) bool {
		names = append(names, f.Path())
		return true
	})
	slices.Sort(names)
	return names
}

// httpHandler returns the handler that the default mux has for a path. Only its
// type matters.
func httpHandler(path string) any {
	r, err := http.NewRequest(http.MethodGet, "http://localhost"+path, nil)
	if err != nil {
		return err
	}
	if h, pattern := http.DefaultServeMux.Handler(r); pattern != "" {
		return h
	}
	return nil
}

// grpcCompressors returns the compressors that a client announces to its server:
// every registered one.
func grpcCompressors() (names []string, err error) {
	listener := bufconn.Listen(1 << 10)
	server := grpc.NewServer(grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
		var err error
		if names, err = grpc.ClientSupportedCompressors(stream.Context()); err != nil {
			return err
		}
		return stream.SendMsg(&emptypb.Empty{})
	}))
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	conn, err := grpc.NewClient("passthrough:///", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))
	if err != nil {
		return nil, err
	}
	err = conn.Invoke(context.Background(), "/any/any", &emptypb.Empty{}, &emptypb.Empty{})
	if cerr := conn.Close(); err == nil {
		err = cerr
	}
	server.Stop()
	if serr := <-served; err == nil {
		err = serr
	}
	slices.Sort(names)
	return names, err
}
