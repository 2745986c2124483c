// A Java client asks through an outage: no answer while the path is gone, all of it after.
import java.io.IOException;
import java.net.Socket;
import java.net.SocketTimeoutException;
import java.net.UnixDomainSocketAddress;
import java.nio.ByteBuffer;
import java.nio.channels.Channels;
import java.nio.channels.SocketChannel;
import java.nio.charset.StandardCharsets;

public class Outage {
    static void order(String path, String body) throws IOException {
        var control = UnixDomainSocketAddress.of(System.getenv("HALFOPEN_CONTROL"));
        try (var channel = SocketChannel.open(control)) {
            var request = "POST " + path + " HTTP/1.1\r\nHost: halfopen\r\nConnection: close\r\nContent-Length: "
                    + body.length() + "\r\n\r\n" + body;
            channel.write(ByteBuffer.wrap(request.getBytes(StandardCharsets.US_ASCII)));
            var answer = new String(Channels.newInputStream(channel).readAllBytes(), StandardCharsets.UTF_8);
            check(answer.startsWith("HTTP/1.1 200"), answer);
        }
    }

    static void check(boolean holds, String why) {
        if (!holds) throw new AssertionError(why);
    }

    public static void main(String[] arguments) throws IOException {
        try (var client = new Socket("server", 7000)) {
            client.getOutputStream().write('x');
            check(client.getInputStream().read() == 'x', "no answer before the outage");
            order("/fault", "{\"kind\": \"blackhole\"}");
            client.getOutputStream().write('y');
            client.setSoTimeout(1_000);
            try {
                client.getInputStream().read();
                throw new AssertionError("an answer came through a blackhole");
            } catch (SocketTimeoutException expected) {
                order("/heal", "");
            }
            client.setSoTimeout(10_000);
            check(client.getInputStream().read() == 'y', "no answer after the outage");
        }
    }
}
