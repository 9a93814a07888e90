/*
 * Runs main classes of Kafka's command line tools in one JVM, because starting a JVM for each costs more than the tool.
 *
 * Listens on a free loopback port, printed on the first line of stdout. One connection is one run: the caller sends
 * (each a 4-byte length and UTF-8) the class, the number of arguments as text, the arguments, and what stdin shall hold;
 * it gets a 4-byte exit code, what the tool printed on standard output (with a 4-byte length before it), and then everything
 * that it printed on both streams, as it came. Output and exit belong to the run by its thread group, so runs do not mix.
 */

import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.DataInputStream;
import java.io.DataOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.io.PrintStream;
import java.lang.reflect.InvocationTargetException;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.nio.charset.StandardCharsets;
import java.util.List;
import java.util.concurrent.CopyOnWriteArrayList;
import org.apache.kafka.common.utils.Exit;

public final class ToolRunner {
    /** Thrown where the tool would have ended the JVM. */
    private static final class Ended extends Error {
        final int code;

        Ended(int code) {
            super("exit " + code, null, false, false);
            this.code = code;
        }
    }

    private static final class Run extends ThreadGroup {
        final ByteArrayOutputStream output = new ByteArrayOutputStream();
        final ByteArrayOutputStream standard = new ByteArrayOutputStream();
        final InputStream input;
        final List<Runnable> hooks = new CopyOnWriteArrayList<>();

        Run(byte[] input) {
            super("run");
            this.input = new ByteArrayInputStream(input);
        }
    }

    private static Run current() {
        for (ThreadGroup group = Thread.currentThread().getThreadGroup(); group != null; group = group.getParent()) {
            if (group instanceof Run) {
                return (Run) group;
            }
        }
        return null;
    }

    private static final class Output extends OutputStream {
        private final OutputStream outside;
        private final boolean standard;

        Output(OutputStream outside, boolean standard) {
            this.outside = outside;
            this.standard = standard;
        }

        @Override
        public void write(int one) throws IOException {
            write(new byte[] {(byte) one}, 0, 1);
        }

        @Override
        public void write(byte[] bytes, int start, int length) throws IOException {
            Run run = current();
            if (run == null) {
                outside.write(bytes, start, length);
            } else {
                run.output.write(bytes, start, length);
                if (standard) {
                    run.standard.write(bytes, start, length);
                }
            }
        }
    }

    private static final class Input extends InputStream {
        @Override
        public int read() throws IOException {
            Run run = current();
            return run == null ? -1 : run.input.read();
        }

        @Override
        public int read(byte[] bytes, int start, int length) throws IOException {
            Run run = current();
            return run == null ? -1 : run.input.read(bytes, start, length);
        }
    }

    private static byte[] field(DataInputStream from) throws IOException {
        byte[] bytes = new byte[from.readInt()];
        from.readFully(bytes);
        return bytes;
    }

    private static String text(DataInputStream from) throws IOException {
        return new String(field(from), StandardCharsets.UTF_8);
    }

    private static int codeOf(Throwable thrown) {
        for (Throwable at = thrown; at != null; at = at.getCause()) {
            if (at instanceof Ended) {
                return ((Ended) at).code;
            }
        }
        thrown.printStackTrace();
        return 1;
    }

    private static void serve(Socket socket) throws Exception {
        try (socket) {
            DataInputStream in = new DataInputStream(socket.getInputStream());
            String name = text(in);
            String[] arguments = new String[Integer.parseInt(text(in))];
            for (int i = 0; i < arguments.length; i++) {
                arguments[i] = text(in);
            }
            Run run = new Run(field(in));
            int[] code = {0};
            Thread thread = new Thread(run, () -> {
                try {
                    Class.forName(name).getMethod("main", String[].class).invoke(null, (Object) arguments);
                } catch (InvocationTargetException thrown) {
                    code[0] = codeOf(thrown.getCause());
                } catch (Throwable thrown) {
                    code[0] = codeOf(thrown);
                }
                run.hooks.forEach(Runnable::run);
                System.out.flush();
            });
            thread.start();
            thread.join();
            DataOutputStream out = new DataOutputStream(socket.getOutputStream());
            out.writeInt(code[0]);
            out.writeInt(run.standard.size());
            run.standard.writeTo(out);
            run.output.writeTo(out);
            out.flush();
        }
    }

    public static void main(String[] none) throws Exception {
        System.setOut(new PrintStream(new Output(System.out, true), true, "UTF-8"));
        System.setErr(new PrintStream(new Output(System.err, false), true, "UTF-8"));
        System.setIn(new Input());
        Exit.setExitProcedure((code, message) -> {
            if (message != null) {
                System.err.println(message);
            }
            throw new Ended(code);
        });
        Exit.setShutdownHookAdder((name, hook) -> {
            Run run = current();
            if (run != null) {
                run.hooks.add(hook);
            }
        });
        ServerSocket server = new ServerSocket(0, 50, InetAddress.getLoopbackAddress());
        System.out.println(server.getLocalPort());
        while (true) {
            Socket socket = server.accept();
            Thread thread = new Thread(() -> {
                try {
                    serve(socket);
                } catch (Exception thrown) {
                    thrown.printStackTrace();
                }
            });
            thread.setDaemon(true);
            thread.start();
        }
    }
}
